// A browser at a site as its camera, microphone and screen: the agent's own page with Chromium's fake camera. The site is
// convened by itself, the dispatcher sees its picture, the page shows the stage; then the box loses its power, its camera, and
// its place to a second window, and comes back each time.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { byId, inBothLanguages, launch, openPage, screenshot, showsMoving } from "../lib/browser.mjs";
import { until } from "../lib/demo.mjs";
import { Fleet } from "../lib/fleet.mjs";
import { siteNumber } from "../lib/mark.mjs";

const SITE = "WH-EL-01-C001-S01";
const OTHER = "WH-EL-01-C002-S01";

let fleet, camera, browser, desk, page;

before(async () => {
  fleet = await Fleet.start([SITE, OTHER], { [SITE]: "page" });
  camera = await launch(SITE, fleet.folder);
  browser = await launch("desk:duty", fleet.folder);
});

after(async () => {
  await camera?.close().catch(() => undefined);
  await browser?.close().catch(() => undefined);
  await fleet?.stop();
});

const tileOf = (site) => byId(desk, "tile", `[data-site="${site}"]`);
const status = () => fleet.status(SITE);

/** Pictures of the stage that the page has decoded, by the browser's own count. */
const decoded = () =>
  page.evaluate(async () => {
    const report = await peer?.getStats();
    const pictures = [...(report?.values() ?? [])].filter((entry) => entry.type === "inbound-rtp" && entry.kind === "video");
    return pictures.reduce((sum, entry) => sum + (entry.framesDecoded ?? 0), 0);
  });

/** The stage on the page shows the site's picture, and goes on. */
async function showsStage(site, limitMs = 20_000) {
  await until(`the page shows ${site} on the stage`, async () => (await markOnStage())?.site === siteNumber(site), { limitMs });
  const before = await decoded();
  await until("the stage goes on", async () => (await decoded()) > before + 5, { limitMs });
}

const markOnStage = () =>
  page.evaluate(() => {
    const video = document.getElementById("stage");
    if (!video.videoWidth) return undefined;
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
    const pixels = canvas.getContext("2d", { willReadFrequently: true });
    pixels.drawImage(video, 0, 0);
    return window.musterReadMark(pixels.getImageData(0, 0, canvas.width, canvas.height).data, canvas.width, canvas.height);
  });

const connected = () => page.evaluate(() => peer?.connectionState === "connected" && session);

async function convene() {
  desk = await openPage(browser, fleet.url);
  await byId(desk, "signin-account").fill(fleet.account);
  await byId(desk, "signin-password").fill(fleet.password);
  await byId(desk, "signin-submit").click();
  await until("both are online", async () => (await byId(desk, "online-count").innerText()).includes("2"));
  await byId(desk, "online-count").click();
  await byId(desk, "tree-check").first().click();
  await byId(desk, "convene").click();
  await byId(desk, "convene-confirm").click();
  await byId(desk, "on-air-count", '[data-on-air="2"]').waitFor({ timeout: 30_000 });
}

async function broadcast(site) {
  await tileOf(site).click({ position: { x: 20, y: 20 } });
  await byId(desk, "broadcast").click();
  await showsMoving(byId(desk, "stage", `[data-site="${site}"]`), site);
}

test("a browser at the site is its camera and its screen", { timeout: 300_000 }, async () => {
  try {
    page = await openPage(camera, fleet.pages.get(SITE), { width: 1280, height: 720 });
    await until("the page is connected to the agent", connected);
    await until("the own picture is shown", () => page.evaluate(() => document.querySelector("#own-box video").videoWidth > 0));
    await until("the page says that the camera is well", async () => (await page.locator("#own-how").innerText()) === "摄像机和麦克风正常");
    await inBothLanguages(page, "site-camera-waiting");

    await convene();
    await showsMoving(tileOf(SITE), SITE, 30_000);
    await broadcast(OTHER);
    await showsStage(OTHER);
    await screenshot(page, "site-camera-meeting.zh");
  } catch (error) {
    error.message += `\npage: ${page?.troubles.join("; ")}\ndesk: ${desk?.troubles.join("; ")}\n${JSON.stringify(status())}\n${fleet.logs()}`;
    throw error;
  }
});
