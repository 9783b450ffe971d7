// The main job in real browsers: a dispatcher convenes twelve agents and one community worker, sees the right site in
// every picture, mutes, sets the large picture for all, loses an agent and gets it back, and ends the meeting.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { byId, inBothLanguages, launch, openPage, showsMoving } from "../lib/browser.mjs";
import { Demo, until } from "../lib/demo.mjs";

const AGENTS = 12;
/** LIVE in muster.media.v1.SlotStatus. */
const LIVE = '[data-status="3"]';

let demo, browsers, desk, worker, workerSite, agentSites;

before(async () => {
  demo = await Demo.start(AGENTS);
  agentSites = demo.announced().agents.map(({ site }) => site);
  const sites = await demo.command("site", "list");
  workerSite = sites.find(({ id, tier }) => tier === "community" && !agentSites.includes(id)).id;
  browsers = [await launch("desk:duty", demo.folder), await launch(workerSite, demo.folder)];
});

after(async () => {
  await Promise.all((browsers ?? []).map((browser) => browser.close().catch(() => undefined)));
  await demo?.stop();
});

/** A step of the story. What the pages and the demonstration said is shown with its failure; later steps are pointless. */
let broken = "";
function step(name, act) {
  test(name, { timeout: 120_000 }, async () => {
    assert.equal(broken, "", "an earlier step failed");
    try {
      await act();
    } catch (error) {
      broken = name;
      const troubles = [desk, worker].flatMap((page) => page?.troubles ?? []).slice(-10);
      error.message += `\npages: ${troubles.join("\n")}\ndemonstration: ${demo.output.slice(-2_000)}`;
      throw error;
    }
  });
}

const tileOf = (site) => byId(desk, "tile", `[data-site="${site}"]`);
const placeOf = (site) => byId(desk, "tile").evaluateAll((tiles, id) => tiles.findIndex((tile) => tile.dataset.site === id), site);
const stateOfWorker = () => byId(worker, "join-state").getAttribute("data-state");

step("a wrong password is refused in words", async () => {
  const { url, account } = demo.announced();
  desk = await openPage(browsers[0], url);
  await byId(desk, "signin-account").waitFor();
  await inBothLanguages(desk, "sign-in");
  await byId(desk, "signin-account").fill(account);
  await byId(desk, "signin-password").fill("not the password");
  await byId(desk, "signin-submit").click();
  assert.notEqual((await byId(desk, "signin-error").innerText()).trim(), "");
});

step("the dispatcher signs in and sees who is online", async () => {
  await byId(desk, "signin-password").fill(demo.announced().password);
  await byId(desk, "signin-submit").click();
  await until("twelve sites are online", async () => (await byId(desk, "online-count").innerText()).includes(String(AGENTS)), { limitMs: 60_000 });
});

step("a worker opens a site link, sees the own camera, and is ready with one touch", async () => {
  const link = await demo.command("site", "link", workerSite);
  worker = await openPage(browsers[1], link.url, { width: 390, height: 720 });
  await byId(worker, "join-button").waitFor();
  await inBothLanguages(worker, "join-first");
  await byId(worker, "join-button").click();
  await byId(worker, "join-preview").waitFor();
  await until("the worker's page is ready", async () => (await stateOfWorker()) === "ready");
  await inBothLanguages(worker, "join-ready");
  await until("thirteen sites are online", async () => (await byId(desk, "online-count").innerText()).includes(String(AGENTS + 1)));
});

step("the dispatcher chooses all that are online, and is asked once", async () => {
  await byId(desk, "online-count").click();
  await byId(desk, "tree-check").first().click();
  await inBothLanguages(desk, "command-tree");
  await byId(desk, "convene").click();
  await byId(desk, "convene-confirm").waitFor();
  await until("the preview counts thirteen", async () => (await byId(desk, "convene-confirm").innerText()).includes(String(AGENTS + 1)));
  // The words of the question are made when it is asked, so each language has its own.
  await inBothLanguages(desk, "command-convene");
  await byId(desk, "convene-confirm").click();
});

step("all are on air", async () => {
  await byId(desk, "on-air-count", `[data-on-air="${AGENTS + 1}"][data-called="${AGENTS + 1}"]`).waitFor({ timeout: 30_000 });
  assert.equal(await byId(desk, "not-on-air-row").count(), 0);
  await until("the worker's page is in the meeting", async () => (await stateOfWorker()) === "in");
});

step("every tile shows its site, with a moving clock", async () => {
  await byId(desk, "tile-count", '[data-count="16"]').click();
  assert.equal(await byId(desk, "tile").count(), AGENTS + 1);
  await Promise.all([...agentSites, workerSite].map((site) => showsMoving(tileOf(site), site, 30_000)));
});

step("the dispatcher's own picture is what the worker sees until a site is brought up", async () => {
  await showsMoving(byId(worker, "join-stage", '[data-site="desk:duty"]'), "desk:duty");
});

step("muting one site and then all reaches the worker's page in words", async () => {
  const words = async () => (await byId(worker, "join-words").innerText()).trim();
  const before = await words();
  await byId(tileOf(workerSite), "tile-mute").click();
  const muted = await until("the worker's page says that it is muted", async () => ((await words()) !== before ? words() : undefined));
  await byId(tileOf(workerSite), "tile-mute", '[aria-pressed="true"]').waitFor();
  await byId(tileOf(workerSite), "tile-mute").click();
  await until("the worker's page says that it is heard again", async () => (await words()) === before);
  await byId(desk, "mute-all").click();
  await byId(desk, "mute-all", '[data-armed="true"]').waitFor();
  await byId(desk, "mute-all").click();
  await until("all are muted", async () => (await words()) === muted);
  assert.equal((await demo.command("status"))[0].muted_sites.length, AGENTS + 1);
  await byId(desk, "mute-all", '[data-on="true"]').click();
  await until("all are heard again", async () => (await words()) === before);
});

step("a site is brought to the large picture of everyone", async () => {
  const site = agentSites[3];
  await tileOf(site).click({ position: { x: 20, y: 20 } });
  await byId(desk, "broadcast").click();
  await showsMoving(byId(desk, "stage", `[data-site="${site}"]`), site);
  await showsMoving(byId(worker, "join-stage", `[data-site="${site}"]`), site);
  await inBothLanguages(desk, "command-meeting");
  // How the own network fares is said in words beside the mark.
  await byId(worker, "quality", '[data-bars="3"]').waitFor();
  await inBothLanguages(worker, "join-in");
});

step("the worker's picture can be the large one too", async () => {
  await tileOf(workerSite).click({ position: { x: 20, y: 20 } });
  await byId(desk, "broadcast").click();
  await showsMoving(byId(desk, "stage", `[data-site="${workerSite}"]`), workerSite);
});

step("a browser's camera comes in layers, and each place gets the one that fits it", async () => {
  const widthIn = (place) => place.evaluate((element) => element.querySelector("video.shown")?.videoWidth ?? 0);
  const widths = async () => [await widthIn(byId(desk, "stage")), await widthIn(tileOf(workerSite))];
  // The clip is 640 x 360: the page sends that and half of it.
  await until("the large picture at 640 and the tile at 320", async () => (await widths()).join() === "640,320", { limitMs: 30_000 });
});

step("an agent that is killed is reported within three seconds, and returns to its place", async () => {
  const site = agentSites[5];
  const place = await placeOf(site);
  const pid = demo.pidOf(site);
  assert.equal(await tileOf(site).locator(".state").count(), 0);
  const killed = Date.now();
  process.kill(pid, "SIGKILL");
  await tileOf(site).locator(".state").waitFor({ timeout: 3_000 });
  assert.ok(Date.now() - killed <= 3_000);
  assert.notEqual((await tileOf(site).locator(".state").innerText()).trim(), "");
  await until("the agent runs again", () => {
    const now = demo.pidOf(site);
    return now !== undefined && now !== pid;
  });
  await byId(desk, "on-air-count", `[data-on-air="${AGENTS + 1}"]`).waitFor();
  await tileOf(site).and(desk.locator(LIVE)).waitFor();
  await tileOf(site).locator(".state").waitFor({ state: "detached" });
  await showsMoving(tileOf(site), site);
  assert.equal(await placeOf(site), place);
});

step("a reload of the command page finds the meeting again", async () => {
  await desk.reload();
  await until("the meeting is offered or shown", async () => {
    if (await byId(desk, "tile").count()) return true;
    // The page goes back in by itself, and may take the button away while it is being pressed.
    if (await byId(desk, "meeting-join").count()) await byId(desk, "meeting-join").first().click({ timeout: 500 }).catch(() => undefined);
    return undefined;
  });
  await showsMoving(tileOf(agentSites[0]), agentSites[0]);
});

step("the meeting ends everywhere", async () => {
  await byId(desk, "end").click();
  await byId(desk, "end").click();
  await until("the worker's page says that it has ended", async () => (await stateOfWorker()) === "ended");
  await inBothLanguages(worker, "join-ended");
  await byId(desk, "tile").first().waitFor({ state: "detached" });
  assert.deepEqual(await demo.command("status"), []);
});
