// Signs in with a real browser: Debian's Chromium, driven by playwright-core. Reads one JSON line:
//   {"start", "login", "chromium"}
// goes there, says at the identity provider's page who it is, and writes one JSON line: where it was led, what
// /v1/me says to it there, and the attributes of the cookie it holds; or {"error"}.
import { once } from "node:events";
import { createInterface } from "node:readline";
import { chromium } from "playwright-core";

const [line] = await once(createInterface({ input: process.stdin }), "line");
const { start, login, chromium: executablePath } = JSON.parse(line);

async function signIn() {
  const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
  try {
    const context = await browser.newContext();
    const page = await context.newPage();
    await page.goto(start);
    await page.fill("input[name=login]", login);
    const home = new URL(start).origin;
    await Promise.all([page.waitForURL((url) => url.origin === home), page.click("button")]);
    const url = page.url();
    const script = await page.evaluate(() => document.cookie);
    // The page lets no script call anybody, so the browser goes there itself.
    const answer = await page.goto(`${home}/v1/me`);
    const me = { status: answer.status(), body: await answer.json() };
    const cookies = await context.cookies(home);
    const cookie = cookies.find((one) => one.name === "__Host-bulkhead");
    const { httpOnly, secure, sameSite } = cookie ?? {};
    return { url, me, script, cookie: { httpOnly, secure, sameSite } };
  } finally {
    await browser.close();
  }
}

const answer = await signIn().catch((error) => ({ error: String(error) }));
process.stdout.write(`${JSON.stringify(answer)}\n`);
process.exit(0);
