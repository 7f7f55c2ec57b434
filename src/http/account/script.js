"use strict";
// The secret part of the link leaves the address bar and the history at once.
const token = location.hash.slice(1);
history.replaceState(null, "", location.pathname);

const form = document.getElementById("account");
const outcome = document.getElementById("outcome");

function tell(text) {
  outcome.textContent = text;
}

// What is wrong, in the words of the problem document.
async function complaint(answer) {
  try {
    const problem = await answer.json();
    const faults = (problem.errors || []).map((fault) => fault.message);
    return faults.length > 0 ? `The password ${faults.join("; ")}.` : `${problem.title}. ${problem.detail || ""}`;
  } catch {
    return `The server answered ${answer.status}. Try again later.`;
  }
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const body = { token };
  if (form.dataset.password) {
    body[form.dataset.password] = document.getElementById("password").value;
  }
  const button = form.querySelector("button");
  button.disabled = true;
  tell("One moment…");
  try {
    const answer = await fetch(form.dataset.api, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(body),
    });
    if (answer.ok) {
      form.hidden = true;
      tell(form.dataset.done);
      document.getElementById("onward").hidden = false;
      return;
    }
    tell(await complaint(answer));
  } catch {
    tell("The server cannot be reached. Try again later.");
  }
  button.disabled = false;
});

if (token === "") {
  form.hidden = true;
  tell("The link is not complete. Open it from the mail again.");
}
