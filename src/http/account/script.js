"use strict";
// The secret part of the link leaves the address bar and the history at once.
const token = location.hash.slice(1);
history.replaceState(null, "", location.pathname);

const form = document.getElementById("account");
const outcome = document.getElementById("outcome");
let sent = false;
const onward = document.querySelector("#onward a");

function tell(text) {
  outcome.textContent = text;
}

function send(path, body) {
  return fetch(path, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  });
}

// What is wrong, in the words of the problem document.
async function complaint(answer) {
  try {
    const problem = await answer.json();
    const faults = (problem.errors || []).map((fault) => fault.message);
    return faults.length > 0 ? `The password ${faults.join("; ").replace(/\.$/, "")}.` : `${problem.title}. ${problem.detail || ""}`;
  } catch {
    return `The server answered ${answer.status}. Try again later.`;
  }
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  sent = true;
  const body = { token };
  if (form.dataset.password) {
    body[form.dataset.password] = document.getElementById("password").value;
  }
  const button = form.querySelector("button");
  button.disabled = true;
  tell("One moment…");
  try {
    const answer = await send(form.dataset.api, body);
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

// Whose the link is. Names that people chose are put in as text, never as markup.
function introduce({ kind, tenant, role, expires_at: ends }) {
  const until = new Date(ends).toLocaleString("en-GB", {
    dateStyle: "long", timeStyle: "short", timeZone: "UTC",
  }) + " UTC";
  const strong = (text) => Object.assign(document.createElement("strong"), { textContent: text });
  const said = {
    invite: [strong(tenant.name), " invites you to join as ", strong(role), `. The invitation ends on ${until}.`],
    reset: ["It is for your account at ", strong(tenant.name), `. The link ends on ${until}.`],
    verify: ["It is your address at ", strong(tenant.name), `. The link ends on ${until}.`],
  };
  const name = document.createElement("p");
  name.append("Organisation to name when you sign in: ", strong(tenant.slug));
  const first = document.createElement("p");
  first.append(...said[kind]);
  document.getElementById("about").replaceChildren(first, name);
  onward.href += `?${new URLSearchParams({ tenant: tenant.slug })}`;
}

// Asks what the link is for, which does not use it up. One that is good for nothing shows no form.
async function look() {
  try {
    const answer = await send("/v1/auth/links/read", { token });
    const link = answer.ok ? await answer.json() : null;
    if (link && link.kind === form.dataset.kind) {
      introduce(link);
    } else if ((link || answer.status === 400) && !sent) {
      form.hidden = true;
      tell(link ? "The link is for another page. Open it from the mail again." : await complaint(answer));
    }
  } catch {
    // The form stays: sending it says what is wrong.
  }
}

if (token === "") {
  form.hidden = true;
  tell("The link is not complete. Open it from the mail again.");
} else {
  look();
}
