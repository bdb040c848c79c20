// Drives an authorization request: sign-in, second factor, new password, agreement, and back to the client.
"use strict";

const PARTS = ["wait", "sign_in", "second_factor", "change_password", "consent", "over"];
const KNOWN = [
  "client_id", "redirect_uri", "response_type", "response_mode", "scope", "state", "nonce", "code_challenge",
  "code_challenge_method", "prompt", "max_age", "acr_values", "request", "request_uri",
];
const SEEN = {
  openid: "An identifier, so that it knows you again",
  email: "Your e-mail address",
  profile: "Your name",
  offline_access: "All of this also while you are away, until you sign out",
};
const METHODS = {
  totp: ["Enter the code that your authenticator app shows.", "Code from the app", "Use my authenticator app"],
  email_code: ["We have sent a code to your e-mail address.", "Code from the mail", "Send a code to my e-mail address"],
  recovery_code: ["Enter one of your recovery codes.", "Recovery code", "Use a recovery code"],
  passkey: ["Confirm with your passkey.", "", "Use my passkey"],
  security_key: ["Confirm with your security key.", "", "Use my security key"],
};
const KEYS = new Set(["passkey", "security_key"]);
const OVER = new Set(["authorization_request_invalid", "sign_in_expired", "oauth_client_unknown", "redirect_uri_mismatch"]);
const DEVICE = "gatefold_device";

const at = (id) => document.getElementById(id);
const asked = new URLSearchParams(location.search);
let begun = null;
let pending = null;
let method = "";

function show(name) {
  page.show(name, PARTS);
  document.title = `${at(name).querySelector("h1").textContent} · ${begun ? begun.publication : "Gatefold"}`;
}

function leave(target) {
  show("wait");
  // The request stands in this page's address: it is not to be found by going back.
  location.replace(target);
}

// Shows what went wrong where the reader is; answers whether that was the end.
function failed(body) {
  page.say(page.words(body));
  if (OVER.has(body.reason)) {
    at("wait").hidden = true;
    show("over");
    return true;
  }
  return false;
}

async function authorize(consent) {
  const { status, body } = await page.post("/v1/oauth2/authorizations/authorize", { handle: begun.handle, consent });
  if (status === 200 && body.location) {
    leave(body.location);
  } else if (status === 200 && body.next === "consent") {
    at("who").textContent = body.email;
    at("asked").replaceChildren(
      ...begun.scopes.map((scope) => {
        const line = document.createElement("li");
        line.textContent = SEEN[scope] || scope;
        return line;
      }),
    );
    show("consent");
  } else if (status === 200 || status === 401 || (status === 403 && body.reason !== "csrf_refused")) {
    // Nobody is signed in, or somebody who is no reader of this publication.
    await (begun.silent ? refuse() : show("sign_in"));
  } else if (!failed(body)) {
    show("sign_in");
  }
}

async function refuse() {
  const { status, body } = await page.post("/v1/oauth2/authorizations/refuse", { handle: begun.handle });
  if (status === 200 && body.location) {
    leave(body.location);
  } else {
    failed(body);
  }
}

// What a sign-in answers: the session is in the cookie now, or something is missing.
async function goOn({ status, body }) {
  if (status !== 200) {
    // Whoever mistyped types anew at once.
    if (!failed(body)) {
      const field = ["code", "password", "new_password"].map(at).find((one) => one.offsetParent);
      field?.focus();
      field?.select();
    }
    return;
  }
  if (body.device_token) {
    localStorage.setItem(DEVICE, body.device_token);
  }
  pending = body.pending || null;
  if (pending && pending.next === "second_factor") {
    choose(pending.methods.find((one) => METHODS[one] && (!KEYS.has(one) || window.PublicKeyCredential)) || pending.methods[0]);
  } else if (pending) {
    show("change_password");
  } else {
    ["password", "code", "new_password"].forEach((id) => (at(id).value = ""));
    await authorize(false);
  }
}

async function choose(chosen) {
  method = chosen;
  const [told, label] = METHODS[method];
  at("code_told").textContent = told;
  at("code_label").textContent = label;
  at("code_entry").hidden = KEYS.has(method);
  at("code").value = "";
  at("code").inputMode = method === "recovery_code" ? "text" : "numeric";
  at("other_methods").replaceChildren(
    ...pending.methods
      .filter((one) => one !== method && METHODS[one])
      .map((one) => {
        const button = document.createElement("button");
        button.type = "button";
        button.className = "link";
        button.textContent = METHODS[one][2];
        button.addEventListener("click", () => {
          page.say("");
          choose(one);
        });
        return button;
      }),
  );
  show("second_factor");
  if (method === "email_code") {
    const { status, body } = await page.post("/v1/sessions/code", { pending_token: pending.token });
    if (status >= 400 || status === 0) {
      failed(body);
    }
  }
}

// Asks the authenticator; empty where the reader turns it down.
async function passkey() {
  const { status, body } = await page.post("/v1/passkeys/proof", { pending_token: pending.token, method });
  if (status !== 200) {
    failed(body);
    return "";
  }
  try {
    const options = PublicKeyCredential.parseRequestOptionsFromJSON(JSON.parse(body.options));
    return JSON.stringify(await navigator.credentials.get({ publicKey: options }));
  } catch {
    page.say("That did not work. Try again, or choose another way.");
    return "";
  }
}

page.submits(at("sign_in"), async () => {
  const email = at("email").value.trim();
  const password = at("password").value;
  if (!email || !password) {
    page.say("Enter your e-mail address and your password.");
    at(email ? "password" : "email").focus();
    return;
  }
  await goOn(
    await page.post("/v1/oauth2/authorizations/sign_in", {
      handle: begun.handle,
      email,
      password,
      device_token: localStorage.getItem(DEVICE) || "",
    }),
  );
});

page.submits(at("second_factor"), async () => {
  const body = { pending_token: pending.token, method };
  if (KEYS.has(method)) {
    body.credential = await passkey();
    if (!body.credential) {
      return;
    }
  } else {
    body.code = at("code").value.trim();
    if (!body.code) {
      page.say("Enter the code.");
      at("code").focus();
      return;
    }
  }
  await goOn(await page.post("/v1/sessions/complete", body));
});

page.submits(at("change_password"), async () => {
  await goOn(
    await page.post("/v1/sessions/change_password", {
      pending_token: pending.token,
      new_password: at("new_password").value,
    }),
  );
});

page.submits(at("consent"), () => authorize(true));

for (const button of document.querySelectorAll(".refuse")) {
  button.addEventListener("click", refuse);
}
at("somebody_else").addEventListener("click", () => show("sign_in"));

(async () => {
  const wanted = {};
  for (const name of KNOWN) {
    // A parameter that comes twice is an error (RFC 6749 section 3.1): the service is to see that there is something wrong.
    const values = asked.getAll(name);
    if (values.length > 1) {
      page.say("The site or app sent you here with a broken address.");
      show("over");
      return;
    }
    if (values[0]) {
      [wanted[name]] = values;
    }
  }
  const { status, body } = await page.post("/v1/oauth2/authorizations", wanted);
  if (status !== 200) {
    page.say(page.words(body));
    show("over");
    return;
  }
  if (body.location) {
    leave(body.location);
    return;
  }
  begun = body;
  at("publication").textContent = body.publication;
  document.querySelectorAll(".client").forEach((one) => (one.textContent = body.client_name));
  at("email").value = asked.get("login_hint") || "";
  if (body.sign_in) {
    show("sign_in");
  } else {
    await authorize(false);
  }
})();
