"use strict";
// What a provider's callback hands over stands behind the #, and leaves the address bar at once.
const handed = new URLSearchParams(location.hash.slice(1));
const asked = new URLSearchParams(location.search);
history.replaceState(null, "", location.pathname + location.search);

const part = (name) => document.getElementById(name);
const outcome = part("outcome");
const steps = ["start", "second", "enrol", "confirm", "codes", "done"];
let waiting = null;

function tell(text) {
  outcome.textContent = text;
}

function show(step) {
  for (const name of steps) {
    part(name).hidden = name !== step;
  }
  const first = part(step).querySelector("input");
  if (first) {
    first.focus();
  }
}

// A path of this host and nothing that a browser could take for another one.
function wanted() {
  const path = handed.get("return_to") || asked.get("return_to");
  if (!path || !/^\/[!-~]*$/.test(path)) return null;
  try {
    const there = new URL(path, location.origin);
    const written = path.split(/[?#]/)[0];
    const decoded = decodeURIComponent(written);
    const isLocal = there.origin === location.origin && there.pathname === written
      && !/\/\/|\\|\/\.\.?(\/|$)/.test(decoded);
    // Some routes of the API lead on to other hosts.
    return isLocal && !decoded.startsWith("/v1/auth/") ? path : null;
  } catch {
    return null;
  }
}

async function send(path, body, method = "POST") {
  const answer = await fetch(path, {
    method,
    headers: { "content-type": "application/json", "x-bulkhead-csrf": "1" },
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  const json = answer.status === 204 ? null : await answer.json();
  if (!answer.ok) {
    throw new Error(explained(answer, json));
  }
  return json;
}

function explained(answer, problem) {
  if (answer.status === 401) {
    return "That is not right. Check the organisation, the address and what you signed in with.";
  }
  if (answer.status === 429) {
    return `Too many attempts. Try again in ${answer.headers.get("retry-after")} seconds.`;
  }
  const faults = (problem.errors || []).map((fault) => `${fault.pointer} ${fault.message}`);
  return faults.length > 0 ? faults.join("; ") : `${problem.title}. ${problem.detail || ""}`;
}

// A passkey's answer in the form of the API, or why there is none.
async function passkey(publicKey, act = "get") {
  if (!window.PublicKeyCredential || !PublicKeyCredential.parseRequestOptionsFromJSON) {
    throw new Error("This browser does not know passkeys.");
  }
  if (/^[0-9.]+$|^\[/.test(location.hostname)) {
    throw new Error("Passkeys need a name in the address, not a number: on this machine, localhost.");
  }
  try {
    if (act === "create") {
      const options = PublicKeyCredential.parseCreationOptionsFromJSON(publicKey);
      return (await navigator.credentials.create({ publicKey: options })).toJSON();
    }
    const options = PublicKeyCredential.parseRequestOptionsFromJSON(publicKey);
    return (await navigator.credentials.get({ publicKey: options })).toJSON();
  } catch {
    throw new Error("No passkey was given. Try again, or sign in another way.");
  }
}

function wait(token, methods) {
  waiting = token;
  part("code-fields").hidden = !methods.some((method) => method !== "passkey");
  part("second-passkey").hidden = !methods.includes("passkey");
  show("second");
  tell("");
}

async function arrive() {
  const answer = await fetch("/v1/me");
  const me = await answer.json();
  if (answer.status === 403 && me.type === "/problems/mfa-enrolment-required") {
    show("enrol");
    tell("");
    return;
  }
  if (!answer.ok) {
    throw new Error(explained(answer, me));
  }
  const path = wanted();
  if (path) {
    tell("Signed in.");
    location.assign(path);
    return;
  }
  part("who").textContent = `${me.email} at ${me.tenant.name}`;
  show("done");
  tell("");
}

async function settle(answer) {
  if (answer.mfa_required) {
    wait(answer.mfa_token, answer.methods);
  } else {
    await arrive();
  }
}

function on(form, act) {
  part(form).addEventListener("submit", async (event) => {
    event.preventDefault();
    await attempt(act);
  });
}

async function attempt(act) {
  // What went wrong before is over.
  part("notice")?.remove();
  tell("One moment…");
  for (const button of document.querySelectorAll("button")) {
    button.disabled = true;
  }
  try {
    await act();
  } catch (error) {
    tell(error instanceof TypeError ? "The server cannot be reached. Try again later." : error.message);
  }
  for (const button of document.querySelectorAll("button")) {
    button.disabled = false;
  }
}

on("start", async () => {
  if (part("email").value === "" || part("password").value === "") {
    throw new Error("Fill in your address and your password, or sign in another way.");
  }
  const [tenant, email, password] = ["tenant", "email", "password"].map((name) => part(name).value);
  await settle(await send("/v1/auth/sign-in", { tenant, email, password }));
});

on("second", async () => {
  const code = part("code").value.trim();
  await settle(await send("/v1/auth/mfa", { mfa_token: waiting, code }));
});

// Who has just signed in by password has it in the form still; others have none to show.
const shownPassword = () => part("password").value || undefined;

function keep(codes) {
  part("recovery").textContent = codes.join("\n");
  show("codes");
  tell("");
}

on("enrol", async () => {
  const begun = await send("/v1/me/mfa/totp", { password: shownPassword() });
  const picture = new DOMParser().parseFromString(begun.qr_svg, "image/svg+xml").documentElement;
  part("qr").replaceChildren(document.importNode(picture, true));
  part("secret").textContent = begun.secret;
  show("confirm");
  tell("");
});

on("confirm", async () => {
  const confirmed = await send("/v1/me/mfa/totp/confirm", { code: part("new-code").value.trim() });
  keep(confirmed.recovery_codes);
});

part("enrol-passkey").addEventListener("click", () => attempt(async () => {
  const { publicKey } = await send("/v1/me/passkeys/options", { password: shownPassword() });
  const credential = await passkey(publicKey, "create");
  const enrolled = await send("/v1/me/passkeys", { name: "Passkey", credential });
  keep(enrolled.recovery_codes);
}));

on("codes", arrive);

part("forgot").addEventListener("click", () => attempt(async () => {
  const [tenant, email] = [part("tenant").value, part("email").value];
  if (tenant === "" || email === "") {
    throw new Error("Fill in the organisation and your address; a link comes by mail.");
  }
  await send("/v1/auth/password/forgot", { tenant, email });
  tell("If you are known there, a link is on its way to your mailbox.");
}));

part("second-passkey").addEventListener("click", () => attempt(async () => {
  const { publicKey } = await send("/v1/auth/mfa/passkey/options", { mfa_token: waiting });
  await settle(await send("/v1/auth/mfa", { mfa_token: waiting, passkey: await passkey(publicKey) }));
}));

part("with-passkey").addEventListener("click", () => attempt(async () => {
  const tenant = part("tenant").value;
  const { publicKey } = await send("/v1/auth/passkey/options", { tenant });
  await settle(await send("/v1/auth/passkey", { tenant, credential: await passkey(publicKey) }));
}));

part("with-provider").addEventListener("click", () => {
  const [tenant, provider] = [part("tenant").value, part("provider").value.trim()];
  if (tenant === "" || provider === "") {
    tell("Name the organisation, and the account to sign in with.");
    return;
  }
  const query = new URLSearchParams({ tenant, return_to: wanted() || "/account/sign-in?signed_in=1" });
  location.assign(`/v1/auth/oidc/${encodeURIComponent(provider)}/start?${query}`);
});

on("done", async () => {
  await send("/v1/auth/sign-out");
  show("start");
  tell("You are signed out.");
});

part("tenant").value = asked.get("tenant") || "";
part("provider").value = asked.get("provider") || "";
part("elsewhere").open = asked.has("provider");
if (handed.has("mfa_token")) {
  wait(handed.get("mfa_token"), (handed.get("methods") || "").split(","));
} else if (asked.has("signed_in")) {
  attempt(arrive);
} else {
  show("start");
}
