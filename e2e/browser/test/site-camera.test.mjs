// A browser at a site as its camera, microphone and screen: the agent's own page with Chromium's fake camera. The site is
// convened by itself, the dispatcher sees its picture, the page shows the stage; then the box loses its power, its camera, and
// its place to a second window, and comes back each time.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { byId, inBothLanguages, launch, openPage, screenshot, showsMoving } from "../lib/browser.mjs";
import { until } from "../lib/demo.mjs";
import { Fleet } from "../lib/fleet.mjs";
import { lookAt } from "../lib/look.mjs";
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

/** The page finds no camera, for this reason, until `plugged`: as if its device were pulled out, or taken away by the settings. */
async function unplug(name) {
  await page.evaluate((name) => {
    const devices = navigator.mediaDevices;
    window.plugged ??= devices.getUserMedia.bind(devices);
    devices.getUserMedia = (want) => (want.video ? Promise.reject(new DOMException("by the test", name)) : window.plugged(want));
    own.video.stop();
    own.video.dispatchEvent(new Event("ended"));
  }, name);
}

async function plug() {
  await page.evaluate(() => {
    navigator.mediaDevices.getUserMedia = window.plugged;
    navigator.mediaDevices.dispatchEvent(new Event("devicechange"));
  });
}

const words = (locator, expected) => until(`the page says ${expected}`, async () => (await page.locator(locator).innerText()).includes(expected));
const deskSays = (expected) => until(`the desk says ${expected}`, async () => (await desk.locator("body").innerText()).includes(expected));
const deskIsSilentOf = (gone) => until(`the desk says no longer ${gone}`, async () => !(await desk.locator("body").innerText()).includes(gone));

/** Runs a step; what everybody saw is told where it fails. */
function step(name, run) {
  test(name, { timeout: 180_000 }, async () => {
    try {
      await run();
    } catch (error) {
      error.message += `\npage: ${page?.troubles.join("; ")}\ndesk: ${desk?.troubles.join("; ")}\n${JSON.stringify(status())}\n${fleet.logs()}`;
      throw error;
    }
  });
}

step("a browser at the site is its camera and its screen", async () => {
  page = await openPage(camera, fleet.pages.get(SITE), { width: 1280, height: 720 });
  page.on("console", (said) => said.type() === "warning" && page.troubles.push(said.text()));
  await until("the page is connected to the agent", connected);
  await until("the own picture is shown", () => page.evaluate(() => document.querySelector("#own-box video").videoWidth > 0));
  await words("#own-how", "摄像机和麦克风正常");
  await lookAt(page, "site-camera-waiting");
  await inBothLanguages(page, "site-camera-waiting");

  await convene();
  await showsMoving(tileOf(SITE), SITE, 30_000);
  await broadcast(OTHER);
  await showsStage(OTHER);
  // The stage comes in the size of the window, not of a status line.
  assert.ok(await page.locator("#meet").isVisible());
  await lookAt(page, "site-camera-meeting");
  await screenshot(page, "site-camera-meeting.zh");
  assert.equal(status().camera_fault, null);
});

step("the own picture on the stage is said to be, and the chair's mute is seen", async () => {
  await broadcast(SITE);
  await words("#meet-who", "本会场");
  await showsStage(SITE);
  await fleet.command("mute", SITE);
  await words("#meet-mic", "已被主席静音");
  const sent = status().audio_packets;
  assert.ok(sent.length === 3);
  await screenshot(page, "site-camera-muted.zh");
  await fleet.command("unmute", SITE);
  await words("#meet-mic", "麦克风：开");
  await broadcast(OTHER);
  await showsStage(OTHER);
});

step("a page that is loaded again goes on as the same camera", async () => {
  const { meeting, pictures_sent } = status();
  await page.reload();
  await showsStage(OTHER);
  await until("it sends again", () => status().pictures_sent > pictures_sent + 10);
  assert.equal(status().meeting, meeting);
  await showsMoving(tileOf(SITE), SITE);
});

step("what is wrong with the camera is said here and at the desk, and it comes back by itself", async () => {
  await unplug("NotFoundError");
  await words("#meet-side .own p", "没有摄像机");
  await words("#meet-state", "没有摄像机");
  await deskSays("没有摄像头");
  assert.equal(status().camera_fault, "missing");
  await screenshot(page, "site-camera-missing.zh");
  await plug();
  await until("the camera is well", () => status().camera_fault === null);
  await deskIsSilentOf("没有摄像头");
  await showsMoving(tileOf(SITE), SITE);

  await unplug("NotAllowedError");
  await words("#meet-state", "未允许");
  await deskSays("浏览器未允许摄像头");
  await plug();
  await until("the camera is well", () => status().camera_fault === null);
  await showsMoving(tileOf(SITE), SITE);
});

step("a second window takes over, and gives back", async () => {
  const first = page;
  const second = await openPage(camera, fleet.pages.get(SITE));
  await until("the second is connected", () => second.evaluate(() => peer?.connectionState === "connected" && session));
  await words("#meet-state", "另一个窗口");
  await screenshot(first, "site-camera-elsewhere.zh");
  await showsMoving(tileOf(SITE), SITE);
  // One that says no goodbye is known to be gone after ten seconds of silence.
  await second.context().close();
  await showsStage(OTHER, 40_000);
  await showsMoving(tileOf(SITE), SITE, 30_000);
});

step("the box loses its power, and the page and the picture are back by themselves", async () => {
  const before = await page.evaluate(() => session);
  await fleet.kill(`agent-${SITE}`);
  await words("#meet-state", "本机程序没有响应");
  fleet.again(`agent-${SITE}`);
  await until("the page is connected to the agent", async () => (await connected()) && (await page.evaluate(() => session)) !== before, { limitMs: 30_000 });
  await showsStage(OTHER, 40_000);
  await showsMoving(tileOf(SITE), SITE, 40_000);
  assert.equal(await page.locator("#meet-state").isVisible(), false);
});
