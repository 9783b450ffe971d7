// The rarer duties of a night, in real browsers: a delegation with an end, a silent drill, a meeting that begins by itself, a site
// with sound alone, voice switching, a shared screen, a floor that the site gives back, an emergency that takes a site away and
// gives it back, the roll call on paper, the attendance with its gap. The commander reads Chinese, the officer English.

import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { byId, launch, openPage, showsMoving } from "../lib/browser.mjs";
import { Demo, until } from "../lib/demo.mjs";
import { lookAt, SIZES } from "../lib/look.mjs";

const AGENTS = 3;
/** With the one that only the scheduled meeting calls. */
const ALL_AGENTS = AGENTS + 1;
const OFFICER = "zhao.min";
const PASSWORD = "the small hours";
const PRESET = "Night watch";
const HOURS = 4;

let demo, browsers, commander, officer, worker, mute, agentSites, scheduledSite, workerSite, quietSite;

before(async () => {
  demo = await Demo.start(ALL_AGENTS);
  agentSites = demo.announced().agents.map(({ site }) => site);
  scheduledSite = agentSites.pop();
  const sites = await demo.command("site", "list");
  [workerSite, quietSite] = sites.filter(({ id, tier }) => tier === "community" && ![...agentSites, scheduledSite].includes(id)).map(({ id }) => id);
  // Whoever shares shows their own tab: no window is there to be chosen.
  browsers = [await launch(`desk:${OFFICER}`, demo.folder, ["--auto-select-tab-capture-source-by-title=Muster"]), await launch(workerSite, demo.folder)];
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
      const pages = [commander, officer, worker, mute].filter(Boolean);
      const banners = await Promise.all(pages.map((page) => page.locator('[data-testid="banner"]').allInnerTexts().catch(() => [])));
      const kept = process.env.MUSTER_E2E_PICTURES;
      if (kept) await Promise.all(pages.map((page, at) => page.screenshot({ path: join(kept, `failed-${at}.png`) }).catch(() => undefined)));
      error.message += `\nbanners: ${banners.flat().join(" | ")}\npages: ${pages.flatMap((page) => page.troubles).slice(-10).join("\n")}\ndemonstration: ${demo.output.slice(-2_000)}`;
      throw error;
    }
  });
}

const tileOf = (page, site) => byId(page, "tile", `[data-site="${site}"]`);
const stateOf = (page) => byId(page, "join-state").getAttribute("data-state");
const onAir = (count, called) => byId(officer, "on-air-count", `[data-on-air="${count}"]${called ? `[data-called="${called}"]` : ""}`).waitFor({ timeout: 30_000 });
const missingRow = (site) => byId(officer, "not-on-air-row", `[data-site="${site}"]`);
const logLine = (kind) => byId(officer, "log-line", `[data-kind="${kind}"]`).first().waitFor();
const has = async (locator, text) => (await locator.innerText()).includes(text);

async function signIn(account, password, lang) {
  const page = await openPage(browsers[0], demo.announced().url, { lang });
  await byId(page, "signin-account").fill(account);
  await byId(page, "signin-password").fill(password);
  await byId(page, "signin-submit").click();
  await byId(page, "tree-check").first().waitFor({ timeout: 30_000 });
  return page;
}

/** Chooses these sites in the tree, by search and mouse. */
async function choose(page, sites) {
  for (const site of sites) {
    await byId(page, "tree-search").fill(site);
    await byId(page, "tree-check", `[data-id="${site}"]`).click();
  }
  await byId(page, "tree-search").fill("");
  await page.evaluate(() => document.activeElement.blur());
}

step("the commander delegates for four hours: who, where and until when is in the row", async () => {
  const { account, password } = demo.announced();
  commander = await signIn(account, password, "zh-CN");
  await until("the agents are online", async () => has(byId(commander, "online-count"), String(ALL_AGENTS)), { limitMs: 60_000 });
  await byId(commander, "open-accounts").click();
  await byId(commander, "account-add").click();
  await byId(commander, "account-name").fill(OFFICER);
  await byId(commander, "account-password").fill(PASSWORD);
  await byId(commander, "account-save").click();
  const row = byId(commander, "account-row", `[data-account="${OFFICER}"]`);
  const from = Date.now();
  await byId(row, "delegate").click();
  await until("the button asks again, in Chinese", () => has(byId(row, "delegate"), "再"));
  await byId(row, "delegate").click();
  const roles = row.locator(".roles", { hasText: /\d\d:\d\d/ });
  await roles.waitFor();
  const ends = new Date(from + HOURS * 3_600_000);
  const told = [0, 1].map((minutes) => new Date(ends.getTime() + minutes * 60_000).toTimeString().slice(0, 5));
  const text = await roles.innerText();
  assert.ok(told.some((time) => text.includes(time)), `${text} says ${told.join(" or ")}`);
  assert.ok(text.includes("值班员"), text);
  await lookAt(commander, "accounts");
  await commander.keyboard.press("Escape");
});

step("the officer saves a preset and schedules it: the row says when it will begin", async () => {
  officer = await signIn(OFFICER, PASSWORD, "en-GB");
  worker = await openPage(browsers[1], (await demo.command("site", "link", workerSite)).url, { width: 390, height: 844 });
  await byId(worker, "join-button").click();
  mute = await openPage(browsers[1], "about:blank", { width: 390, height: 844, lang: "en-GB" });
  // Another program has the camera; the microphone is free.
  await mute.addInitScript(() => {
    const real = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
    navigator.mediaDevices.getUserMedia = (wanted) => (wanted.video ? Promise.reject(new DOMException("Device in use", "NotReadableError")) : real(wanted));
  });
  await mute.goto((await demo.command("site", "link", quietSite)).url);
  await byId(mute, "join-button").click();
  await until("all are online", async () => has(byId(officer, "online-count"), String(ALL_AGENTS + 2)));
  await choose(officer, [scheduledSite]);
  await byId(officer, "convene").click();
  await byId(officer, "preset-ask").click();
  await byId(officer, "preset-name").fill(PRESET);
  await byId(officer, "preset-save").click();
  await byId(officer, "preset-name").waitFor({ state: "detached" });
  await officer.keyboard.press("Escape");
  await officer.keyboard.press("o");
  // The field has minutes; the next one may be over before it is filled in.
  const begins = new Date(Math.ceil((Date.now() + 8_000) / 60_000) * 60_000);
  const local = new Date(begins.getTime() - begins.getTimezoneOffset() * 60_000).toISOString().slice(0, 16);
  const sheet = byId(officer, "sheet");
  await sheet.locator('input[type="datetime-local"]').fill(local);
  await sheet.locator('form button[type="submit"]').click();
  const row = byId(sheet, "schedule-row");
  await row.waitFor();
  assert.match(await row.innerText(), new RegExp(`${PRESET}.*next.*${local.slice(11)}`, "s"));
  await officer.keyboard.press("Escape");
  await choose(officer, [scheduledSite]);
});

step("a silent drill says of every site what works, and disturbs nobody", async () => {
  await choose(officer, [...agentSites, workerSite, quietSite]);
  await officer.keyboard.press("o");
  const sheet = byId(officer, "sheet");
  await byId(sheet, "drill-start").click();
  const rows = byId(sheet, "drill-row");
  await until("every site has answered", async () => (await rows.count()) === AGENTS + 2);
  const bad = (site) => byId(sheet, "drill-row", `[data-site="${site}"]`).getAttribute("data-bad");
  for (const site of [...agentSites, workerSite]) assert.equal(await bad(site), "0", site);
  assert.ok(await has(byId(sheet, "drill-row", `[data-site="${quietSite}"]`), "failed"), "its camera is in use");
  assert.equal(await rows.first().getAttribute("data-site"), quietSite, "what is wrong comes first");
  await until("the sum is told", async () => /4 of 5 ready/.test(await sheet.innerText()));
  for (const page of [worker, mute]) assert.equal(await stateOf(page), "ready");
  await lookAt(officer, "drill");
  await officer.keyboard.press("Escape");
});

step("a site whose camera is taken is there with sound alone, and both sides say so", async () => {
  await officer.keyboard.press("Enter");
  await byId(officer, "convene-confirm").click();
  await onAir(AGENTS + 2, AGENTS + 2);
  await showsMoving(tileOf(officer, workerSite), workerSite, 30_000);
  await logLine("no_picture");
  await until("its own page says so", () => has(byId(mute, "join-state"), "sound alone"));
  await until("its tile says so", () => has(tileOf(officer, quietSite), "ound"));
  assert.equal(await tileOf(officer, quietSite).locator("video.shown").count(), 0);
  await lookAt(officer, "meeting");
});

step("voice switching: the large picture follows who speaks", async () => {
  // The desk is a voice like any other.
  await byId(officer, "own-mic").click();
  await officer.evaluate(() => document.activeElement.blur());
  await officer.keyboard.press("Shift+M");
  await officer.keyboard.press("Shift+M");
  await byId(officer, "cmd-voice").click();
  await byId(officer, "cmd-voice", '[data-on="true"]').waitFor();
  const stage = byId(officer, "stage");
  for (const site of [workerSite, agentSites[1]]) {
    await byId(tileOf(officer, site), "tile-mute").click();
    await showsMoving(byId(officer, "stage", `[data-site="${site}"]`), site, 30_000);
    await until("the caption says why", () => has(stage, "follows who speaks"));
    await showsMoving(byId(worker, "join-stage", `[data-site="${site}"]`), site, 30_000);
    await byId(tileOf(officer, site), "tile-mute").click();
  }
  await officer.keyboard.press("v");
  await byId(officer, "cmd-voice", '[data-on="false"]').waitFor();
  await officer.keyboard.press("Shift+M");
});

step("a shared screen has a place of its own: the large picture stays", async () => {
  await tileOf(officer, agentSites[0]).click({ position: { x: 20, y: 20 } });
  await officer.keyboard.press("b");
  await showsMoving(byId(officer, "stage", `[data-site="${agentSites[0]}"]`), agentSites[0]);
  await officer.keyboard.press("s");
  await byId(officer, "content", `[data-site="desk:${OFFICER}"]`).waitFor();
  await byId(worker, "join-content", `[data-site="desk:${OFFICER}"]`).locator("video.shown").waitFor();
  const wide = () => worker.locator('[data-testid="join-content"] video').evaluate((video) => video.videoWidth);
  await until("the worker sees the screen", async () => (await wide()) > 0);
  await showsMoving(byId(officer, "stage", `[data-site="${agentSites[0]}"]`), agentSites[0]);
  await lookAt(officer, "content");
  await byId(officer, "stop-sharing").click();
  await byId(officer, "content").waitFor({ state: "detached" });
  await byId(worker, "join-content").waitFor({ state: "detached" });
  await showsMoving(byId(worker, "join-stage", `[data-site="${agentSites[0]}"]`), agentSites[0]);
});

step("the floor: asked for and withdrawn by the site, asked for and granted, and given back", async () => {
  const row = byId(officer, "floor-row", `[data-site="${workerSite}"]`);
  await byId(worker, "join-hand").click();
  await byId(officer, "floor-row", `[data-site="${workerSite}"][data-state="1"]`).waitFor();
  await byId(worker, "join-hand").click();
  await row.waitFor({ state: "detached" });
  await byId(worker, "join-hand", '[data-floor="0"]').waitFor();
  await byId(worker, "join-hand").click();
  await byId(row, "floor-grant").click();
  await byId(officer, "floor-row", `[data-site="${workerSite}"][data-state="2"]`).waitFor();
  await logLine("floor_granted");
  await lookAt(officer, "floor");
  await byId(worker, "join-hand", '[data-floor="2"]').click();
  await row.waitFor({ state: "detached" });
});

step("an emergency takes a site away; it comes back by itself when that is over", async () => {
  await choose(commander, [workerSite]);
  await byId(commander, "convene").click();
  await byId(commander, "convene-priority").locator('[data-value="3"]').click();
  await byId(commander, "convene-confirm").click();
  await byId(commander, "on-air-count", '[data-on-air="1"]').waitFor({ timeout: 30_000 });
  const row = missingRow(workerSite);
  await row.waitFor();
  await until("the row says that it comes back by itself", () => has(row, "comes back by itself"));
  await until("and how urgent the other meeting is", async () => /emergency/i.test(await row.innerText()));
  assert.equal(await byId(row, "call-again").count(), 0);
  await until("the worker is told too", () => has(byId(worker, "join-words"), "更紧急"));
  await lookAt(officer, "called-away");
  await lookAt(commander, "emergency", SIZES.slice(1));
  await byId(commander, "end").click();
  await byId(commander, "end", '[data-armed="true"]').click();
  await row.waitFor({ state: "detached", timeout: 30_000 });
  await onAir(AGENTS + 2);
  await until("the worker's page is in the first meeting", async () => (await stateOf(worker)) === "in");
  await showsMoving(byId(worker, "join-stage", `[data-site="${agentSites[0]}"]`), agentSites[0], 30_000);
});

step("the commander takes over, and hands back", async () => {
  // The scheduled one may have begun meanwhile.
  await byId(commander, "meeting-row").filter({ hasNotText: PRESET }).locator('[data-testid="meeting-join"]').click();
  await byId(commander, "chair-line", `[data-chair="${OFFICER}"]`).waitFor();
  await commander.keyboard.press("k");
  await byId(commander, "cmd-take_over", '[data-armed="true"]').waitFor();
  await commander.keyboard.press("k");
  await byId(officer, "chair-line", `[data-chair="${demo.announced().account}"]`).waitFor();
  await logLine("chair_taken");
  await lookAt(commander, "taken-over", SIZES.slice(1));
  await commander.keyboard.press("Shift+K");
  await commander.keyboard.press("Shift+K");
  await byId(officer, "chair-line", `[data-chair="${OFFICER}"]`).waitFor();
});

step("the roll call on paper: the table alone, black on white", async () => {
  await officer.locator("body").click({ position: { x: 640, y: 4 } });
  await officer.keyboard.press("r");
  await byId(officer, "roll-call-start").click();
  await lookAt(officer, "roll-call");
  await until("the roll call is over", async () => {
    if (await byId(officer, "roll-call", '[data-phase="over"]').count()) return true;
    await officer.keyboard.press("Enter");
    return undefined;
  }, { everyMs: 300, limitMs: 30_000 });
  await byId(officer, "roll-call-result").click();
  const rows = byId(officer, "roll-row");
  await until("all are in the result", async () => (await rows.count()) === AGENTS + 2);
  await officer.emulateMedia({ media: "print" });
  for (const gone of ["header", "footer", ".side", '[data-testid="print"]']) assert.equal(await officer.locator(gone).first().isVisible(), false, gone);
  const title = officer.locator(".print-only");
  assert.ok(await title.isVisible() && /^Wuhan|^武汉/.test(await title.innerText()), await title.innerText());
  for (const site of [...agentSites, workerSite, quietSite]) assert.ok(await byId(officer, "roll-row", `[data-site="${site}"]`).isVisible(), site);
  const ink = await rows.first().locator("td").first().evaluate((cell) => getComputedStyle(cell).color);
  assert.equal(ink, "rgb(0, 0, 0)");
  const paper = await officer.pdf({ format: "A4" });
  const pages = paper.toString("latin1").match(/\/Type\s*\/Page\b/g) ?? [];
  assert.equal(pages.length, 1, "five sites are one page");
  if (process.env.MUSTER_E2E_PICTURES) writeFileSync(join(process.env.MUSTER_E2E_PICTURES, "roll-call.pdf"), paper);
  await officer.emulateMedia({ media: "screen" });
  await officer.keyboard.press("Escape");
});

step("the meeting ends; the attendance shows the gap of the site that was called away", async () => {
  await byId(officer, "end").click();
  await byId(officer, "end", '[data-armed="true"]').click();
  await until("the worker's page says that it has ended", async () => (await stateOf(worker)) === "ended");
  await byId(officer, "open-records").click();
  await byId(officer, "records-page").locator('[data-value="attendance"]').click();
  const row = (site) => byId(officer, "attendance-row", `[data-site="${site}"]`);
  await row(workerSite).waitFor();
  assert.equal(await byId(officer, "attendance-row").count(), AGENTS + 2);
  assert.match(await row(workerSite).locator("td").last().innerText(), /\d\d:\d\d:\d\d–\d\d:\d\d:\d\d/);
  assert.equal((await row(agentSites[0]).locator("td").last().innerText()).trim(), "");
  await lookAt(officer, "attendance");
  await officer.keyboard.press("Escape");
  // Whoever may read the log finds it there too.
  await byId(commander, "header-records").click();
  await byId(commander, "record-meeting", '[data-ended="true"]').first().click();
  for (const [part, row] of [["log", "log-event"], ["state", "replay-row"]]) {
    await byId(commander, "records-page").locator(`[data-value="${part}"]`).click();
    await byId(commander, row).first().waitFor();
    await lookAt(commander, `records-${part}`);
  }
  await commander.keyboard.press("Escape");
});

step("the scheduled meeting has begun by itself, with the officer in the chair", async () => {
  const row = byId(officer, "meeting-row").filter({ hasText: OFFICER });
  await row.waitFor({ timeout: 75_000 });
  await row.locator('[data-testid="meeting-join"]').click();
  await onAir(1, 1);
  assert.equal(await byId(officer, "chair-line").getAttribute("data-chair"), OFFICER);
  await showsMoving(tileOf(officer, scheduledSite), scheduledSite, 30_000);
  await byId(officer, "end").click();
  await byId(officer, "end", '[data-armed="true"]').click();
  await officer.keyboard.press("o");
  await until("its row says that it is over", () => has(byId(officer, "schedule-row"), "over"));
  await officer.keyboard.press("Escape");
});

step("the delegation runs out: what the officer may no longer do is no longer shown", async () => {
  await choose(officer, [agentSites[0]]);
  await byId(officer, "convene").waitFor();
  const [{ unit }] = (await demo.command("account", "list")).find(({ name }) => name === OFFICER).grants;
  await demo.command("account", "grant", OFFICER, "duty-officer", unit, "--until", "+2s");
  await until("the officer cannot convene any more", async () => (await byId(officer, "convene").count()) === 0 || (await byId(officer, "convene").isDisabled()), { limitMs: 15_000 });
});
