// The card fields, in the simulator's own origin: what is typed here goes to the simulator and nowhere else.
(() => {
  const form = document.getElementById("card");
  const problem = document.getElementById("problem");
  const page = new URLSearchParams(window.location.search).get("parent");

  const typed = () => {
    const [month = "", year = ""] = form.expiry.value.split("/").map((part) => part.trim());
    return { number: form.number.value.replace(/\s/g, ""), month, year, cvc: form.cvc.value.trim() };
  };

  const incomplete = () => {
    const { number, month, year, cvc } = typed();
    if (!/^\d{12,19}$/.test(number)) return "Your card number is incomplete.";
    if (!/^\d{1,2}$/.test(month) || !/^\d{2}(\d{2})?$/.test(year)) return "Your card's expiration date is incomplete.";
    if (!/^\d{3,4}$/.test(cvc)) return "Your card's security code is incomplete.";
    return "";
  };

  const validate = () => {
    const message = incomplete();
    problem.textContent = message;
    return message ? { error: { type: "validation_error", message } } : {};
  };

  const confirm = async ({ path, key, clientSecret, returnUrl }) => {
    const refused = validate();
    if (refused.error) return refused;
    const { number, month, year, cvc } = typed();
    const body = new URLSearchParams({
      key,
      client_secret: clientSecret,
      "payment_method_data[type]": "card",
      "payment_method_data[card][number]": number,
      "payment_method_data[card][exp_month]": month,
      "payment_method_data[card][exp_year]": year,
      "payment_method_data[card][cvc]": cvc,
      use_stripe_sdk: "true",
    });
    if (returnUrl) body.set("return_url", returnUrl);
    try {
      const response = await fetch(path, { method: "POST", body });
      const answer = await response.json();
      problem.textContent = answer.error?.message || "";
      return answer;
    } catch {
      const message = "We are experiencing issues connecting to our payments provider. Please try again.";
      return { error: { type: "api_connection_error", message } };
    }
  };

  window.addEventListener("message", async (event) => {
    if (event.origin !== page || event.source !== window.parent) return;
    const { type, id } = event.data;
    const result = type === "confirm" ? await confirm(event.data) : validate();
    window.parent.postMessage({ type: "answer", id, result }, page);
  });
  form.addEventListener("input", () => {
    problem.textContent = "";
    window.parent.postMessage({ type: "change", result: { complete: !incomplete(), empty: !form.number.value } }, page);
  });
  form.addEventListener("submit", (event) => event.preventDefault());
  window.parent.postMessage({ type: "ready", result: {} }, page);
})();
