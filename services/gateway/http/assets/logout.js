// Asks the reader whether to sign out, as a client wants, and signs out only then.
"use strict";

const PARTS = ["wait", "ask", "over"];
const at = (id) => document.getElementById(id);
const asked = new URLSearchParams(location.search);
let target = "";

page.submits(at("ask"), async () => {
  const { status, body } = await page.post("/v1/session/sign_out", {});
  // Whoever is not signed in is signed out.
  if (status !== 200 && status !== 401) {
    page.say(page.words(body));
  } else if (target) {
    location.replace(target);
  } else {
    page.show("over", PARTS);
  }
});

(async () => {
  const wanted = {};
  for (const name of ["id_token_hint", "client_id", "post_logout_redirect_uri", "state"]) {
    if (asked.get(name)) {
      wanted[name] = asked.get(name);
    }
  }
  // An ID token is not to stay in the history.
  history.replaceState(null, "", location.pathname);
  const { status, body } = await page.post("/v1/oauth2/logouts", wanted);
  if (status === 200) {
    target = body.location;
    at("publication").textContent = body.publication;
    at("asked_by").textContent = body.client_name ? `${body.client_name} asks you to sign out here as well.` : "";
  } else {
    page.say(page.words(body));
  }
  page.show("ask", PARTS);
})();
