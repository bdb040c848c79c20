// Fetches a task, has it solved beside the page, hands the answer in, and loads what was asked for.
"use strict";

const at = (id) => document.getElementById(id);
const say = (text) => (at("state").textContent = text);

async function asked(how) {
  const answer = await fetch("/challenge", { cache: "no-store", credentials: "same-origin", ...how });
  const body = await answer.json();
  if (!answer.ok) {
    throw new Error(body.detail || "The site did not answer as expected.");
  }
  return body;
}

function solved(task) {
  return new Promise((resolve, reject) => {
    const worker = new Worker("/challenge/worker.js");
    const expected = 2 ** task.bits;
    worker.onmessage = ({ data }) => {
      if (data.number !== undefined) {
        worker.terminate();
        resolve(data.number);
      }
      // How long it takes is chance: so much of all solutions have been found by now.
      at("progress").value = 1 - Math.exp(-data.tried / expected);
    };
    worker.onerror = () => {
      worker.terminate();
      reject(new Error("Your browser could not do the calculation."));
    };
    worker.postMessage(task);
  });
}

function failed(error) {
  at("work").hidden = true;
  at("error").textContent = error.message || "The connection failed.";
  at("again").hidden = false;
  at("again").focus();
}

// Whoever comes back at once after solving has a browser that did not keep the clearance: once more would go on for ever.
function again() {
  try {
    const before = Number(sessionStorage.getItem("gatefold_challenge"));
    sessionStorage.setItem("gatefold_challenge", String(Date.now()));
    return Date.now() - before < 10000;
  } catch {
    return true;
  }
}

async function run() {
  at("again").hidden = true;
  at("error").textContent = "";
  at("work").hidden = false;
  at("progress").value = 0;
  say("Calculating.");
  try {
    const task = await asked({ headers: { Accept: "application/json" } });
    const number = await solved(task);
    await asked({
      method: "POST",
      headers: { "Content-Type": "application/json", Accept: "application/json" },
      body: JSON.stringify({ challenge: task.challenge, number }),
    });
  } catch (error) {
    failed(error);
    return;
  }
  at("progress").value = 1;
  if (location.pathname === "/challenge") {
    say("Done. You can go back to where you were.");
  } else if (!again()) {
    say("Done. The page opens now.");
    location.reload();
  } else {
    failed(new Error("Your browser does not keep cookies for this site. Allow them and try again."));
  }
}

at("again").addEventListener("click", run);
run();
