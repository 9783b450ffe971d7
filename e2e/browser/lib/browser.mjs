// Debian's Chromium with a fake camera, and what a test reads out of its pages.

import { mkdirSync, statSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { chromium } from "playwright-core";
import { until } from "./demo.mjs";
import { cameraClip, readMark, siteNumber } from "./mark.mjs";

const screenshots = resolve(import.meta.dirname, "../../screenshots");
const LARGEST_SCREENSHOT = 300_000;

/** A browser whose camera shows the mark of the site, started with more flags where a test needs them. */
export async function launch(site, folder, more = []) {
  const clip = join(folder, `${site.replace(/[^\w.-]/g, "_")}.y4m`);
  writeFileSync(clip, cameraClip(site));
  return chromium.launch({
    executablePath: process.env.MUSTER_CHROMIUM ?? "/usr/bin/chromium",
    args: [
      "--no-sandbox",
      "--use-fake-ui-for-media-stream",
      "--use-fake-device-for-media-stream",
      `--use-file-for-fake-video-capture=${clip}`,
      "--allow-loopback-in-peer-connection",
      "--autoplay-policy=no-user-gesture-required",
      "--disable-features=WebRtcHideLocalIpsWithMdns",
      ...more,
    ],
  });
}

/** A page that can read marks. What goes wrong in it is kept, to be shown when a test fails. */
export async function openPage(browser, url, { width = 1280, height = 720, lang = "zh-CN" } = {}) {
  const context = await browser.newContext({ viewport: { width, height }, locale: lang, permissions: ["camera", "microphone"] });
  await context.addInitScript(`window.musterReadMark = ${readMark}`);
  const page = await context.newPage();
  page.setDefaultTimeout(20_000);
  page.troubles = [];
  page.on("pageerror", (error) => page.troubles.push(`error: ${error.message}`));
  page.on("console", (message) => message.type() === "error" && page.troubles.push(message.text()));
  await page.goto(url);
  return page;
}

export function byId(scope, testid, more = "") {
  return scope.locator(`[data-testid="${testid}"]${more}`);
}

/** The mark in the picture that is shown inside the element, or undefined. */
export async function markIn(locator) {
  return locator.evaluate((element) => {
    const video = element.querySelector("video.shown");
    if (!video || video.videoWidth === 0) return undefined;
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
    const pixels = canvas.getContext("2d", { willReadFrequently: true });
    pixels.drawImage(video, 0, 0);
    const { data } = pixels.getImageData(0, 0, canvas.width, canvas.height);
    return window.musterReadMark(data, canvas.width, canvas.height);
  });
}

/** Waits until the element shows the site's picture with a clock that moves. */
export async function showsMoving(locator, site, limitMs = 15_000) {
  const number = siteNumber(site);
  let last;
  const right = async () => {
    if ((await locator.count()) === 0) return undefined;
    last = await markIn(locator);
    return last?.site === number ? last : undefined;
  };
  const told = () => `${site} (${number}) with a moving clock; last seen ${JSON.stringify(last)}`;
  const first = await until(told(), right, { limitMs }).catch(() => Promise.reject(new Error(`not within ${limitMs} ms: ${told()}`)));
  await until(told(), async () => {
    const mark = await right();
    return mark && mark.timeMs !== first.timeMs ? mark : undefined;
  }, { limitMs });
}

/** Takes the page in the language that it is in, to e2e/screenshots/NAME.png. */
export async function screenshot(page, name) {
  mkdirSync(screenshots, { recursive: true });
  const path = join(screenshots, `${name}.png`);
  await page.screenshot({ path, animations: "disabled" });
  const { size } = statSync(path);
  if (size > LARGEST_SCREENSHOT) throw new Error(`${path} has ${size} bytes; at most ${LARGEST_SCREENSHOT} are kept in the project`);
}

/** The page in Chinese and in English; it ends in the language that it began with. */
export async function inBothLanguages(page, name) {
  for (let turn = 0; turn < 2; turn += 1) {
    const other = (await byId(page, "lang").innerText()).trim();
    await screenshot(page, `${name}.${other === "中文" ? "en" : "zh"}`);
    await byId(page, "lang").click();
    await until("the page changes its language", async () => (await byId(page, "lang").innerText()).trim() !== other);
  }
}
