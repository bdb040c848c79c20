// The part of Stripe.js that a checkout page uses. Card fields live in an iframe of the simulator's own origin, so that
// card data never touches the publisher's page.
(() => {
  const origin = new URL(document.currentScript.src).origin;

  const read = async (path, key) => {
    const response = await fetch(origin + path, { headers: { Authorization: `Bearer ${key}` } });
    return response.json();
  };

  class Element {
    constructor(key, clientSecret) {
      this.key = key;
      this.clientSecret = clientSecret;
      this.listeners = {};
      this.waiting = new Map();
      this.number = 0;
      this.onMessage = this.onMessage.bind(this);
    }

    on(name, listener) {
      (this.listeners[name] ||= []).push(listener);
      return this;
    }

    mount(where) {
      const target = typeof where === "string" ? document.querySelector(where) : where;
      if (!target) throw new Error(`The selector you specified (${where}) applies to no DOM elements.`);
      this.frame = document.createElement("iframe");
      this.frame.src = `${origin}/elements/v1/frame.html?parent=${encodeURIComponent(window.location.origin)}`;
      this.frame.title = "Secure payment input frame";
      this.frame.allow = "payment *";
      this.frame.style.cssText = "border:0;width:100%;height:230px";
      window.addEventListener("message", this.onMessage);
      target.replaceChildren(this.frame);
    }

    unmount() {
      window.removeEventListener("message", this.onMessage);
      this.frame?.remove();
    }

    destroy() {
      this.unmount();
    }

    onMessage(event) {
      if (event.origin !== origin || event.source !== this.frame.contentWindow) return;
      const { type, id, result } = event.data;
      if (type === "answer") {
        this.waiting.get(id)?.(result);
        this.waiting.delete(id);
        return;
      }
      for (const listener of this.listeners[type] || []) listener({ elementType: "payment", ...result });
    }

    ask(question) {
      const id = ++this.number;
      return new Promise((resolve) => {
        this.waiting.set(id, resolve);
        this.frame.contentWindow.postMessage({ ...question, id, key: this.key }, origin);
      });
    }
  }

  class Elements {
    constructor(key, { clientSecret }) {
      this.key = key;
      this.clientSecret = clientSecret;
    }

    create(kind) {
      if (kind !== "payment") throw new Error(`This simulator has no ${kind} element.`);
      this.element = new Element(this.key, this.clientSecret);
      return this.element;
    }

    getElement() {
      return this.element || null;
    }

    async submit() {
      return this.element.ask({ type: "validate" });
    }
  }

  const intentPath = (clientSecret) => {
    const id = clientSecret.split("_secret_")[0];
    return `/v1/${id.startsWith("seti_") ? "setup_intents" : "payment_intents"}/${id}`;
  };

  const confirm = async (name, { elements, confirmParams = {}, redirect = "always" }) => {
    const { return_url: returnUrl } = confirmParams;
    if (redirect === "always" && !returnUrl) throw new Error("confirmParams.return_url is required.");
    const answer = await elements.element.ask({
      type: "confirm",
      path: `${intentPath(elements.clientSecret)}/confirm`,
      clientSecret: elements.clientSecret,
      returnUrl,
    });
    if (answer.error) return { error: answer.error };
    const action = answer.next_action?.redirect_to_url;
    if (action) {
      window.location.assign(action.url);
      return new Promise(() => {});
    }
    if (redirect === "always") {
      const target = new URL(returnUrl);
      target.searchParams.set(answer.object, answer.id);
      target.searchParams.set(`${answer.object}_client_secret`, elements.clientSecret);
      target.searchParams.set("redirect_status", "succeeded");
      window.location.assign(target);
      return new Promise(() => {});
    }
    return { [name]: answer };
  };

  const retrieve = async (name, key, clientSecret) => {
    const query = new URLSearchParams({ client_secret: clientSecret });
    const answer = await read(`${intentPath(clientSecret)}?${query}`, key);
    return answer.error ? { error: answer.error } : { [name]: answer };
  };

  window.Stripe = (key) => {
    if (!/^pk_/.test(key)) throw new Error("Please call Stripe() with your publishable key.");
    return {
      elements: (options) => new Elements(key, options),
      confirmPayment: (options) => confirm("paymentIntent", options),
      confirmSetup: (options) => confirm("setupIntent", options),
      retrievePaymentIntent: (clientSecret) => retrieve("paymentIntent", key, clientSecret),
      retrieveSetupIntent: (clientSecret) => retrieve("setupIntent", key, clientSecret),
    };
  };
})();
