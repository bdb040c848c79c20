// What the hosted pages share: showing one part at a time, errors, and calls that keep the session in a cookie.
"use strict";

const page = {
  parts: (names) => names.map((name) => document.getElementById(name)),

  show(name, names) {
    for (const part of page.parts(names)) {
      part.hidden = part.id !== name;
    }
    const shown = document.getElementById(name);
    const field = shown.querySelector("input:not([hidden])");
    (field && !field.closest("[hidden]") ? field : shown.querySelector("h1")).focus();
  },

  say(text) {
    const place = document.getElementById("error");
    place.textContent = "";
    place.textContent = text;
  },

  csrf() {
    const found = document.cookie.split("; ").find((one) => one.startsWith("__Host-gatefold_csrf="));
    return found ? found.slice(found.indexOf("=") + 1) : "";
  },

  // Returns {status, body}; status 0 where nothing came back.
  async post(path, body) {
    const headers = { "Content-Type": "application/json", "Gatefold-Session": "cookie" };
    if (page.csrf()) {
      headers["X-CSRF-Token"] = page.csrf();
    }
    try {
      const answer = await fetch(path, {
        method: "POST",
        headers,
        body: JSON.stringify(body),
        credentials: "same-origin",
        cache: "no-store",
      });
      return { status: answer.status, body: await answer.json() };
    } catch {
      return { status: 0, body: { detail: "The connection failed. Try again." } };
    }
  },

  // Whoever presses a button twice asks once.
  submits(form, work) {
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      const buttons = [...form.querySelectorAll("button")];
      if (buttons.some((one) => one.disabled)) {
        return;
      }
      buttons.forEach((one) => (one.disabled = true));
      page.say("");
      try {
        await work();
      } finally {
        buttons.forEach((one) => (one.disabled = false));
      }
    });
  },

  // An answer's own words; for fields the words about the field.
  words(body) {
    const [first] = body.errors || [];
    return (first && first.detail) || body.detail || "Something went wrong. Try again.";
  },
};
