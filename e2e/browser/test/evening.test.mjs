// A whole evening in real browsers: a commander delegates for four hours; the duty officer saves a preset, convenes it with one press,
// calls the missing again, calls the roll, broadcasts, polls the wall, gives the floor; the commander takes the meeting
// over and hands it back; it ends, and the attendance is exported.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, before, test } from "node:test";
import { byId, inBothLanguages, launch, openPage, showsMoving } from "../lib/browser.mjs";
import { Demo, until } from "../lib/demo.mjs";

const AGENTS = 5;
const OFFICER = "li.na";
const PASSWORD = "a night at the desk";
const PRESET = "夜间 night";
const FLOOR_GRANTED = "2";
const PRESENT = "3";

let demo, browsers, commander, officer, worker, workerSite, agentSites;

before(async () => {
  demo = await Demo.start(AGENTS);
  agentSites = demo.announced().agents.map(({ site }) => site);
  const sites = await demo.command("site", "list");
  workerSite = sites.find(({ id, tier }) => tier === "community" && !agentSites.includes(id)).id;
  browsers = [await launch("desk:duty", demo.folder), await launch(`desk:${OFFICER}`, demo.folder), await launch(workerSite, demo.folder)];
});

after(async () => {
  await Promise.all((browsers ?? []).map((browser) => browser.close().catch(() => undefined)));
  await demo?.stop();
});

let broken = "";
function step(name, act) {
  test(name, { timeout: 120_000 }, async () => {
    assert.equal(broken, "", "an earlier step failed");
    try {
      await act();
    } catch (error) {
      broken = name;
      const troubles = [commander, officer, worker].flatMap((page) => page?.troubles ?? []).slice(-10);
      const banners = await Promise.all([commander, officer].map((page) => page?.locator('[data-testid="banner"]').allInnerTexts().catch(() => [])));
      error.message += `\nbanners: ${banners.flat().join(" | ")}\npages: ${troubles.join("\n")}\ndemonstration: ${demo.output.slice(-2_000)}`;
      throw error;
    }
  });
}

const tileOf = (page, site) => byId(page, "tile", `[data-site="${site}"]`);
const stateOfWorker = () => byId(worker, "join-state").getAttribute("data-state");
const press = (page, key) => page.keyboard.press(key);
const onAir = (count) => byId(officer, "on-air-count", `[data-on-air="${count}"]`).waitFor({ timeout: 40_000 });

async function signIn(browser, account, password, lang) {
  const page = await openPage(browser, demo.announced().url, { lang });
  await byId(page, "signin-account").fill(account);
  await byId(page, "signin-password").fill(password);
  await byId(page, "signin-submit").click();
  await byId(page, "tree-check").first().waitFor({ timeout: 30_000 });
  return page;
}

/** Takes the page in both languages, and leaves the keyboard where it was free to go. */
async function pictures(page, name) {
  await inBothLanguages(page, name);
  await page.evaluate(() => document.activeElement.blur());
}

/** Types into the palette and takes what it finds first. */
async function palette(page, words, expected) {
  await press(page, "/");
  await byId(page, "palette-input").fill(words);
  await byId(page, "palette-item", expected).first().waitFor();
  assert.equal(await byId(page, "palette-item").first().getAttribute("data-id"), /data-id="([^"]*)"/.exec(expected)[1]);
  await press(page, "Enter");
}

/** What a press on a button downloads, as text. */
async function download(page, act) {
  const [file] = await Promise.all([page.waitForEvent("download"), act()]);
  return { name: file.suggestedFilename(), text: readFileSync(await file.path(), "utf8") };
}

step("the commander makes an account and delegates with two presses", async () => {
  const { account, password } = demo.announced();
  commander = await signIn(browsers[0], account, password, "zh-CN");
  await until("the agents are online", async () => (await byId(commander, "online-count").innerText()).includes(String(AGENTS)), { limitMs: 60_000 });
  await byId(commander, "open-accounts").click();
  await byId(commander, "account-add").click();
  await byId(commander, "account-name").fill(OFFICER);
  await byId(commander, "account-display").fill("李娜");
  await byId(commander, "account-password").fill(PASSWORD);
  await byId(commander, "account-save").click();
  const row = byId(commander, "account-row", `[data-account="${OFFICER}"]`);
  await row.waitFor();
  await byId(row, "delegate").click();
  await byId(row, "delegate").click();
  // A role with an end: its time is in the row.
  await row.locator(".roles", { hasText: /\d\d:\d\d/ }).waitFor();
  await pictures(commander, "accounts");
  await press(commander, "Escape");
});

step("the duty officer saves the choice as a preset", async () => {
  officer = await signIn(browsers[1], OFFICER, PASSWORD, "zh-CN");
  await until("the agents are online", async () => (await byId(officer, "online-count").innerText()).includes(String(AGENTS)));
  // What one may not do is not shown.
  assert.equal(await byId(officer, "open-accounts").count(), 0);
  await byId(officer, "online-count").click();
  await byId(officer, "tree-check").first().click();
  await byId(officer, "online-count").click();
  await byId(officer, "tree-search").fill(workerSite);
  await byId(officer, "tree-check", `[data-id="${workerSite}"]`).click();
  await byId(officer, "tree-search").fill("");
  await byId(officer, "convene").click();
  await byId(officer, "convene-confirm").waitFor();
  await byId(officer, "convene-minutes").locator('[data-value="30"]').click();
  await byId(officer, "preset-ask").click();
  await byId(officer, "preset-name").fill(PRESET);
  await byId(officer, "preset-save").click();
  await byId(officer, "preset-name").waitFor({ state: "detached" });
  await pictures(officer, "command-preset");
  await press(officer, "Escape");
});

step("the preset is convened with one press; the missing site says why", async () => {
  await byId(officer, "preset").filter({ hasText: PRESET }).locator('[data-testid="preset-convene"]').click();
  await onAir(AGENTS);
  await byId(officer, "on-air-count", `[data-called="${AGENTS + 1}"]`).waitFor();
  const missing = byId(officer, "not-on-air-row", `[data-site="${workerSite}"]`);
  await until("the row gives a reason", async () => (await missing.getAttribute("data-reason")) !== "0");
  assert.notEqual((await missing.locator("p").first().innerText()).trim(), "");
  await byId(officer, "ends").waitFor();
});

step("the missing are called again with one press, and come", async () => {
  const link = await demo.command("site", "link", workerSite);
  worker = await openPage(browsers[2], link.url, { width: 390, height: 720 });
  await byId(worker, "join-button").click();
  // The page may have been called as soon as it came; if not, it is now.
  await until("the worker's page is in the meeting", async () => {
    if ((await stateOfWorker()) === "in") return true;
    const again = byId(officer, "call-all-again");
    if (await again.count()) await again.click({ timeout: 1_000 }).catch(() => undefined);
    return undefined;
  }, { limitMs: 40_000, everyMs: 1_000 });
  await onAir(AGENTS + 1);
  await byId(officer, "call-all-again").waitFor({ state: "detached" });
});

step("the roll is called: one site after another, by the officer and by the worker's own button", async () => {
  await officer.locator("body").click({ position: { x: 640, y: 4 } });
  await press(officer, "r");
  await byId(officer, "roll-call-start").click();
  await byId(officer, "roll-call", '[data-phase="running"]').waitFor();
  await pictures(officer, "command-roll-call");
  const skipped = agentSites[0];
  const done = new Set();
  await until("every site has had its turn", async () => {
    if (await byId(officer, "roll-call", '[data-phase="over"]').count()) return true;
    const current = await byId(officer, "roll-call-current").getAttribute("data-site", { timeout: 2_000 }).catch(() => undefined);
    if (!current || done.has(current)) return undefined;
    done.add(current);
    if (current === skipped) await press(officer, "n");
    else if (current !== workerSite) await press(officer, "Enter");
    else {
      await byId(worker, "join-roll-call").waitFor();
      await pictures(worker, "join-roll-call");
      await byId(worker, "join-roll-call").click();
    }
    return undefined;
  }, { limitMs: 90_000 });
  await byId(officer, "roll-call-result").click();
  const rows = byId(officer, "roll-row");
  await until("all are in the result", async () => (await rows.count()) === AGENTS + 1);
  assert.equal(await byId(officer, "roll-row", `[data-result="${PRESENT}"]`).count(), AGENTS);
  assert.notEqual(await byId(officer, "roll-row", `[data-site="${skipped}"]`).getAttribute("data-result"), PRESENT);
  await pictures(officer, "roll-call-result");
  const { name, text } = await download(officer, () => byId(officer, "csv").click());
  assert.match(name, /\.csv$/);
  assert.equal(text.trim().split("\r\n").length, AGENTS + 2);
  assert.ok(text.startsWith("\uFEFF") && text.includes(workerSite));
  await press(officer, "Escape");
});

step("a site is broadcast by the palette", async () => {
  const site = agentSites[2];
  const name = await tileOf(officer, site).getAttribute("aria-label");
  await palette(officer, `广播 ${name}`, '[data-id="broadcast"]');
  await showsMoving(byId(officer, "stage", `[data-site="${site}"]`), site, 30_000);
  await showsMoving(byId(worker, "join-stage", `[data-site="${site}"]`), site, 30_000);
});

step("the wall polls: its pages turn by themselves, on every desk", async () => {
  // The preset has put a layout on all walls; the officer changes it for all.
  await byId(officer, "tile-count", '[data-count="4"]').click();
  await byId(officer, "tile-count", '[data-count="4"][aria-pressed="true"]').waitFor();
  await press(officer, "p");
  const words = byId(officer, "polling-words");
  await words.waitFor();
  await officer.locator(".bar select").selectOption("5");
  const page = () => words.getAttribute("data-page");
  const first = await page();
  const before = await byId(officer, "tile").evaluateAll((tiles) => tiles.map(({ dataset }) => dataset.site));
  await until("the page has turned", async () => (await page()) !== first, { limitMs: 20_000 });
  const after = await byId(officer, "tile").evaluateAll((tiles) => tiles.map(({ dataset }) => dataset.site));
  assert.deepEqual(after.filter((site) => before.includes(site)), []);
  await showsMoving(tileOf(officer, after[0]), after[0]);
  await pictures(officer, "command-polling");
  await press(officer, "p");
  await words.waitFor({ state: "detached" });
  await byId(officer, "tile-count", '[data-count="16"]').click();
});

step("the worker asks for the floor, gets it for a time, and gives it back", async () => {
  await byId(worker, "join-hand").click();
  await byId(officer, "floor-row", `[data-site="${workerSite}"][data-state="1"]`).waitFor();
  await pictures(worker, "join-hand");
  await press(officer, "f");
  await byId(worker, "join-hand", `[data-floor="${FLOOR_GRANTED}"]`).waitFor();
  await pictures(worker, "join-floor");
  await byId(worker, "join-hand").click();
  await byId(officer, "floor-row").waitFor({ state: "detached" });
});

step("the commander takes the meeting over, and hands it back", async () => {
  await byId(commander, "meeting-row").locator('[data-testid="meeting-join"]').click();
  await byId(commander, "chair-line", `[data-chair="${OFFICER}"]`).waitFor();
  await byId(commander, "cmd-take_over").click();
  await byId(commander, "cmd-take_over", '[data-armed="true"]').click();
  await byId(officer, "chair-line", `[data-chair="${demo.announced().account}"]`).waitFor();
  await pictures(commander, "command-taken-over");
  await byId(commander, "cmd-hand_back").click();
  await byId(commander, "cmd-hand_back", '[data-armed="true"]').click();
  await byId(officer, "chair-line", `[data-chair="${OFFICER}"]`).waitFor();
});

step("it ends, and the attendance is exported", async () => {
  await byId(officer, "end").click();
  await byId(officer, "end", '[data-armed="true"]').click();
  await until("the worker's page says that it has ended", async () => (await stateOfWorker()) === "ended");
  await byId(officer, "open-records").click();
  await byId(officer, "records-page").locator('[data-value="attendance"]').click();
  await until("everyone who was there is in the table", async () => (await byId(officer, "attendance-row").count()) === AGENTS + 1);
  await pictures(officer, "attendance");
  const { text } = await download(officer, () => byId(officer, "csv").click());
  for (const site of [...agentSites, workerSite]) assert.ok(text.includes(site), `${site} is in the file`);
});
