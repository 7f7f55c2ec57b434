// A browser with an authenticator in it: Debian's Chromium, driven by playwright-core, with the virtual
// authenticator of the DevTools protocol. And a second verifier, @simplewebauthn/server, so that no test
// checks our verification against ourselves. Arguments: the browser's program. Reads one JSON request a line
// on standard input and writes one JSON line for each: what it gave, or {"error": name of the error}.
//   {"do": "open", "url", "blank"}     goes to a page; a blank one has that origin and no server
//   {"do": "create" | "get", "options"} a ceremony on that page: {"credential"}
//   {"do": "fill", "fields"}            types into the inputs of these names: {}
//   {"do": "press", "name"}             presses the button of that name, and waits for nothing: {}
//   {"do": "follow", "name"}            follows the link of that name: {}
//   {"do": "dress", "width", "dark"}    makes the window that wide, and light or dark: {}
//   {"do": "measure"}                   how wide the page is with everything on it unfolded, and the window: {"page", "window"}
//   {"do": "read", "until"}             waits until the page says that: {"text", "url", "cookies"}, those that scripts see
//   {"do": "shoot", "path"}             takes a picture: {}
//   {"do": "verify", "on"}              whether the authenticator's user gives a PIN from now on: {}
//   {"do": "count", "to"}               sets the authenticator's counter: {}
//   {"do": "check", "created", "used", "origin", "rp"}  {"created", "used"}: whether another library verifies both
import { createInterface } from "node:readline";
import { verifyAuthenticationResponse, verifyRegistrationResponse } from "@simplewebauthn/server";
import { chromium } from "playwright-core";

const browser = await chromium.launch({
  executablePath: process.argv[2],
  args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"],
});
const page = await browser.newPage();
const devtools = await page.context().newCDPSession(page);
await devtools.send("WebAuthn.enable", { enableUI: false });
const { authenticatorId } = await devtools.send("WebAuthn.addVirtualAuthenticator", {
  options: {
    protocol: "ctap2",
    transport: "internal",
    hasResidentKey: true,
    hasUserVerification: true,
    isUserVerified: true,
    automaticPresenceSimulation: true,
  },
});

const challengeOf = (credential) =>
  JSON.parse(Buffer.from(credential.response.clientDataJSON, "base64url")).challenge;

const acts = {
  async open({ url, blank }) {
    if (blank) {
      await page.route(`${url}/**`, (route) =>
        route.fulfill({ contentType: "text/html", body: "<!doctype html><title>Blank</title>" }),
      );
    }
    await page.goto(url);
    return { origin: await page.evaluate(() => location.origin) };
  },
  create: ({ options }) =>
    page.evaluate(async (options) => {
      const publicKey = PublicKeyCredential.parseCreationOptionsFromJSON(options);
      return { credential: (await navigator.credentials.create({ publicKey })).toJSON() };
    }, options),
  get: ({ options }) =>
    page.evaluate(async (options) => {
      const publicKey = PublicKeyCredential.parseRequestOptionsFromJSON(options);
      return { credential: (await navigator.credentials.get({ publicKey })).toJSON() };
    }, options),
  async fill({ fields }) {
    for (const [name, value] of Object.entries(fields)) {
      await page.locator(`input[name="${name}"], input#${name}`).fill(value);
    }
    return {};
  },
  async press({ name }) {
    await page.getByRole("button", { name, exact: true }).click();
    return {};
  },
  async follow({ name }) {
    await page.getByRole("link", { name, exact: true }).click();
    return {};
  },
  async dress({ width, dark }) {
    await page.setViewportSize({ width, height: 800 });
    await page.emulateMedia({ colorScheme: dark ? "dark" : "light" });
    return {};
  },
  measure: () =>
    page.evaluate(() => {
      for (const details of document.querySelectorAll("details")) details.open = true;
      for (const part of document.querySelectorAll("main [hidden]")) part.hidden = false;
      const { scrollWidth, clientWidth } = document.documentElement;
      return { page: scrollWidth, window: clientWidth };
    }),
  async read({ until }) {
    await page.getByText(until).first().waitFor({ state: "visible" });
    const text = await page.evaluate(() => document.body.innerText);
    return { text, url: page.url(), cookies: await page.evaluate(() => document.cookie) };
  },
  async shoot({ path }) {
    await page.screenshot({ path, fullPage: true });
    return {};
  },
  async verify({ on }) {
    await devtools.send("WebAuthn.setUserVerified", { authenticatorId, isUserVerified: on });
    return {};
  },
  async count({ to }) {
    const { credentials } = await devtools.send("WebAuthn.getCredentials", { authenticatorId });
    for (const credential of credentials) {
      const { credentialId } = credential;
      await devtools.send("WebAuthn.removeCredential", { authenticatorId, credentialId });
      const counted = { ...credential, signCount: to };
      await devtools.send("WebAuthn.addCredential", { authenticatorId, credential: counted });
    }
    return { credentials: credentials.length };
  },
  async check({ created, used, origin, rp }) {
    const made = await verifyRegistrationResponse({
      response: created,
      expectedChallenge: challengeOf(created),
      expectedOrigin: origin,
      expectedRPID: rp,
    });
    const answered = await verifyAuthenticationResponse({
      response: used,
      expectedChallenge: challengeOf(used),
      expectedOrigin: origin,
      expectedRPID: rp,
      credential: made.registrationInfo.credential,
    });
    return { created: made.verified, used: answered.verified };
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const request = JSON.parse(line);
  // A browser's error is `NotAllowedError: …`, whatever stands before it.
  const named = (error) => ({ error: /\b(\w+Error)\b/.exec(error.message)?.[1] ?? String(error) });
  const answer = await acts[request.do](request).catch(named);
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
await browser.close();
