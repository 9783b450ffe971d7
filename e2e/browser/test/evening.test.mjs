// A whole evening in real browsers: a commander delegates for four hours and makes a link for a site; the duty officer
// saves a preset, convenes it with one press, calls the missing again, calls the roll, broadcasts, polls the wall, gives
// the floor; the meeting is taken over twice and handed back twice; an emergency is convened from within it; it ends, and
// after a reload its attendance is exported and its log read, verified and replayed.

import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { byId, inBothLanguages, launch, openPage, showsMoving } from "../lib/browser.mjs";
import { Demo, until } from "../lib/demo.mjs";

const AGENTS = 5;
const OFFICER = "li.na";
const DEPUTY = "wang.fang";
const AUDITOR = "audit";
const PASSWORD = "a night at the desk";
const PRESET = "夜间 night";
const FLOOR_GRANTED = "2";
const PRESENT = "3";
const NO_ANSWER = "3";
const TAKEN_OVER = '[data-case="chair"]';

let demo, browsers, commander, officer, deputy, auditor, worker, link, workerSite, agentSites;

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
      const pages = [commander, officer, deputy, auditor, worker].filter(Boolean);
      const kept = process.env.MUSTER_E2E_PICTURES;
      if (kept) await Promise.all(pages.map((page, at) => page.screenshot({ path: join(kept, `failed-${at}.png`) }).catch(() => undefined)));
      const troubles = pages.flatMap((page) => page.troubles).slice(-10);
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

step("the commander makes a link for a site in the tree, and copies it", async () => {
  await byId(commander, "tree-search").fill(workerSite);
  await byId(commander, "tree-row", `[data-id="${workerSite}"]`).click({ button: "right" });
  await byId(commander, "menu-site_link").click();
  await byId(commander, "link-make").click();
  link = await byId(commander, "link-url").inputValue();
  assert.match(link, /^http:\/\/.+\/join#.+/);
  await byId(commander, "link-copy").click();
  await until("the button says so", async () => (await byId(commander, "link-copy").innerText()).includes("已复制"));
  await pictures(commander, "site-link");
  await press(commander, "Escape");
  await byId(commander, "tree-search").fill("");
});

step("the preset is convened with one press; the site where nobody answers is missing, with the reason", async () => {
  worker = await openPage(browsers[2], link, { width: 390, height: 720 });
  await until("the worker's page is there", async () => (await byId(officer, "online-count").innerText()).includes(String(AGENTS + 1)));
  await byId(officer, "preset").filter({ hasText: PRESET }).locator('[data-testid="preset-convene"]').click();
  await onAir(AGENTS);
  await byId(officer, "on-air-count", `[data-called="${AGENTS + 1}"]`).waitFor();
  await until("it rings at the worker's", async () => (await stateOfWorker()) === "called");
  await byId(officer, "ends").waitFor();
  // Nobody touches it until the call has run out.
  await byId(officer, "call-unconnected", ":not([disabled])").waitFor({ timeout: 60_000 });
  const missing = byId(officer, "not-on-air-row", `[data-site="${workerSite}"]`);
  assert.equal(await missing.getAttribute("data-reason"), NO_ANSWER);
  assert.ok((await missing.innerText()).includes("无人应答"));
  assert.notEqual(await stateOfWorker(), "called");
});

step("the missing are called again with one press, are paged, and come", async () => {
  await byId(officer, "call-unconnected").click();
  await byId(officer, "log-line", '[data-kind="called_again"]').waitFor();
  await until("it rings at the worker's again", async () => (await stateOfWorker()) === "called");
  assert.equal(await byId(officer, "on-air-count").getAttribute("data-on-air"), String(AGENTS));
  await byId(worker, "join-button").click();
  await until("the worker's page is in the meeting", async () => (await stateOfWorker()) === "in", { limitMs: 30_000 });
  await onAir(AGENTS + 1);
  await byId(officer, "call-unconnected", "[disabled]").waitFor();
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

/** Presses what wants a second press in place. */
async function twice(page, id) {
  await byId(page, id).click();
  await byId(page, id, '[data-armed="true"]').click();
}

step("the commander takes the meeting over, another commander from them; both hand it back, without a reload", async () => {
  const chair = (account) => byId(officer, "chair-line", `[data-chair="${account}"]`).waitFor();
  const { account } = demo.announced();
  writeFileSync(join(demo.folder, "password"), PASSWORD);
  const [{ unit }] = (await demo.command("account", "list")).find(({ name }) => name === account).grants;
  for (const [name, role] of [[DEPUTY, "commander"], [AUDITOR, "auditor"]]) {
    await demo.command("account", "put", name, "--new-password-file", join(demo.folder, "password"));
    await demo.command("account", "grant", name, role, unit);
  }
  deputy = await signIn(browsers[0], DEPUTY, PASSWORD, "en-GB");
  for (const page of [commander, deputy]) {
    await byId(page, "meeting-row").locator('[data-testid="meeting-join"]').click();
    await byId(page, "chair-line", `[data-chair="${OFFICER}"]`).waitFor();
  }
  await twice(commander, "cmd-take_over");
  await chair(account);
  await pictures(commander, "command-taken-over");
  await twice(deputy, "cmd-take_over");
  await chair(DEPUTY);
  await twice(deputy, "cmd-hand_back");
  await chair(account);
  await twice(commander, "cmd-hand_back");
  await chair(OFFICER);
  assert.equal(await byId(officer, "cmd-hand_back").count(), 0);
  await deputy.context().close();
});

step("an emergency is convened from within the meeting; the officer goes to and fro, and the site returns", async () => {
  await officer.locator("body").click({ position: { x: 640, y: 4 } });
  // What was chosen for the preset is chosen still.
  await officer.locator(".chosen button").click();
  await byId(officer, "tree-search").fill(workerSite);
  await byId(officer, "tree-check", `[data-id="${workerSite}"]`).click();
  await byId(officer, "tree-search").fill("");
  await officer.evaluate(() => document.activeElement.blur());
  await press(officer, "z");
  await byId(officer, "convene-meanwhile").waitFor();
  await byId(officer, "convene-priority").locator('[data-value="3"]').click();
  await pictures(officer, "command-emergency");
  await byId(officer, "convene-confirm").click();
  await byId(officer, "on-air-count", '[data-on-air="1"][data-called="1"]').waitFor({ timeout: 30_000 });
  const tabs = byId(officer, "meeting-tab");
  assert.equal(await tabs.count(), 2);
  await showsMoving(tileOf(officer, workerSite), workerSite, 30_000);
  await pictures(officer, "command-two-meetings");
  await press(officer, "x");
  await byId(officer, "on-air-count", `[data-on-air="${AGENTS}"][data-called="${AGENTS + 1}"]`).waitFor();
  await showsMoving(tileOf(officer, agentSites[1]), agentSites[1], 30_000);
  await tabs.filter({ hasNot: officer.locator("[aria-current=true]") }).and(officer.locator('[aria-current="false"]')).click();
  await byId(officer, "on-air-count", '[data-called="1"]').waitFor();
  await twice(officer, "end");
  await byId(officer, "meeting-row").locator('[data-testid="meeting-join"]').click();
  await onAir(AGENTS + 1);
});

step("it ends; after a reload the attendance is exported from the records", async () => {
  await twice(officer, "end");
  await until("the worker's page says that it has ended", async () => (await stateOfWorker()) === "ended");
  await officer.reload();
  await byId(officer, "tree-check").first().waitFor({ timeout: 30_000 });
  await press(officer, "t");
  const ended = byId(officer, "record-meeting", '[data-ended="true"]');
  await until("both meetings are listed", async () => (await ended.count()) === 2);
  await ended.nth(1).click();
  await byId(officer, "records-page").locator('[data-value="attendance"]').click();
  await until("everyone who was there is in the table", async () => (await byId(officer, "attendance-row").count()) === AGENTS + 1);
  await pictures(officer, "attendance");
  const { text } = await download(officer, () => byId(officer, "csv").click());
  for (const site of [...agentSites, workerSite]) assert.ok(text.includes(site), `${site} is in the file`);
  const gaps = text.split("\r\n").filter((line) => line.startsWith(workerSite) && line.includes("中断"));
  assert.equal(gaps.length, 1, "the time that the emergency took is a line");
  assert.match(gaps[0], /\d\d:\d\d:\d\d,.*\d\d:\d\d:\d\d/);
  await byId(officer, "records-page").locator('[data-value="rolls"]').click();
  await until("the roll call too", async () => (await byId(officer, "roll-row").count()) === AGENTS + 1);
});

step("an auditor reads the log, verifies it, and sees the meeting as it was", async () => {
  auditor = await signIn(browsers[1], AUDITOR, PASSWORD, "zh-CN");
  assert.equal(await byId(auditor, "convene").count(), 0);
  await press(auditor, "t");
  await byId(auditor, "record-meeting").nth(1).click();
  await byId(auditor, "records-page").locator('[data-value="log"]').click();
  await byId(auditor, "log-event", '[data-seq="1"][data-case="convened"]').waitFor();
  await byId(auditor, "log-verify").click();
  await byId(auditor, "log-verified", '[data-broken="0"]').waitFor();
  await byId(auditor, "verify-all").click();
  await byId(auditor, "verified-all", '[data-broken="0"]').waitFor();
  await pictures(auditor, "records-log");
  const taken = byId(auditor, "log-event", TAKEN_OVER);
  for (let pages = 0; pages < 20 && (await taken.count()) === 0; pages += 1) {
    const first = await byId(auditor, "log-event").first().getAttribute("data-seq");
    await byId(auditor, "log-more").click();
    await until("the next page", async () => (await byId(auditor, "log-event").first().getAttribute("data-seq")) !== first);
  }
  const seq = await taken.first().getAttribute("data-seq");
  await byId(taken.first(), "log-replay").click();
  await byId(auditor, "replay-state", `[data-seq="${seq}"][data-chair="${demo.announced().account}"]`).waitFor();
  assert.equal(await byId(auditor, "replay-row").count(), AGENTS + 1);
  await pictures(auditor, "records-replay");
  await byId(auditor, "replay-go").click();
  await byId(auditor, "replay-state", `[data-chair="${OFFICER}"]`).waitFor();
  await byId(auditor, "records-unit").selectOption({ index: 1 });
  await until("the unit's log says something, or that nothing happened", async () => (await byId(auditor, "log-event").count()) > 0 || (await auditor.locator("section p").count()) > 0);
});
