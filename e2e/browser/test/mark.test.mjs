import assert from "node:assert/strict";
import { test } from "node:test";
import { crc16, drawMark, readMark, siteNumber } from "../lib/mark.mjs";

function drawn(width, height, site, timeMs) {
  const luma = new Uint8Array(width * height).fill(90);
  drawMark(luma, width, height, site, timeMs);
  const rgba = new Uint8ClampedArray(width * height * 4);
  luma.forEach((value, at) => rgba.fill(value, at * 4, at * 4 + 4));
  return rgba;
}

test("the checksum is the one that the test card documents", () => {
  assert.equal(crc16(new TextEncoder().encode("123456789")), 0x29b1);
  assert.equal(siteNumber(""), 0xffff);
});

test("what is drawn is read at any size", () => {
  for (const [width, height] of [[320, 180], [640, 360], [321, 183], [1920, 1080]]) {
    for (const timeMs of [0, 65535, 65536, 4294967295]) {
      assert.deepEqual(readMark(drawn(width, height, 0xbeef, timeMs), width, height), { site: 0xbeef, timeMs });
    }
  }
});

test("a damaged mark is none", () => {
  const rgba = drawn(320, 180, 0x1234, 7);
  for (let y = 120; y < 132; y += 1) rgba.fill(rgba[(y * 320 + 40) * 4] > 128 ? 0 : 255, (y * 320 + 32) * 4, (y * 320 + 48) * 4);
  assert.equal(readMark(rgba, 320, 180), undefined);
  assert.equal(readMark(new Uint8ClampedArray(320 * 180 * 4).fill(128), 320, 180), undefined);
});
