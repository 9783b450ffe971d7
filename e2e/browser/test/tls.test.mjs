// The main job over TLS, with a certificate authority that was made at the first start: a dispatcher and a community worker in
// real browsers, with the content security policy that keeps them to this control plane and its relays.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { byId, launch, openPage, showsMoving } from "../lib/browser.mjs";
import { until } from "../lib/demo.mjs";
import { Secure } from "../lib/secure.mjs";

const AGENT = "WH-EL-01-S01";
const WORKER = "WH-EL-01-C001-S01";

let field, browsers, desk, worker;

before(async () => {
  field = await Secure.start(AGENT);
  browsers = [await launch("desk:duty", field.folder, [field.trust]), await launch(WORKER, field.folder, [field.trust])];
});

after(async () => {
  await Promise.all((browsers ?? []).map((browser) => browser.close().catch(() => undefined)));
  await field?.stop();
});

test("a meeting over TLS: signed in, convened, seen both ways", { timeout: 180_000 }, async () => {
  try {
    await story();
  } catch (error) {
    const troubles = [desk, worker].flatMap((page) => page?.troubles ?? []).slice(-10);
    error.message += `\npages: ${troubles.join("\n")}\nprograms: ${field.output.slice(-3_000)}`;
    throw error;
  }
});

async function story() {
  desk = await openPage(browsers[0], field.url);
  const response = await desk.reload();
  const headers = response.headers();
  assert.match(headers["strict-transport-security"], /max-age=\d+/);
  assert.match(headers["content-security-policy"], /connect-src 'self' https:;/);
  assert.equal(await desk.evaluate(() => performance.getEntriesByType("navigation")[0].nextHopProtocol), "h2");
  await byId(desk, "signin-account").fill(field.account);
  await byId(desk, "signin-password").fill(field.password);
  await byId(desk, "signin-submit").click();

  const link = await field.command("site", "link", WORKER);
  assert.match(link.url, /^https:/);
  worker = await openPage(browsers[1], link.url, { width: 390, height: 720 });
  await byId(worker, "join-button").click();
  await until("both are online", async () => (await byId(desk, "online-count").innerText()).includes("2"), { limitMs: 60_000 });

  await byId(desk, "online-count").click();
  await byId(desk, "tree-check").first().click();
  await byId(desk, "convene").click();
  await byId(desk, "convene-confirm").click();
  await byId(desk, "on-air-count", '[data-on-air="2"][data-called="2"]').waitFor({ timeout: 60_000 });
  const tile = (site) => byId(desk, "tile", `[data-site="${site}"]`);
  await Promise.all([AGENT, WORKER].map((site) => showsMoving(tile(site), site, 30_000)));
  await showsMoving(byId(worker, "join-stage", '[data-site="desk:duty"]'), "desk:duty", 30_000);
  const policy = [desk, worker].flatMap((page) => page.troubles).filter((trouble) => trouble.includes("Content Security Policy"));
  assert.deepEqual(policy, []);
}
