// The machine-readable mark of the test card, as edge-agent/testcard/src/mark.rs documents it: read from pixels, and
// drawn for the fake camera. `readMark` is also put into pages, so it refers to nothing outside itself.

/** CRC-16/CCITT-FALSE; of a site's id it is the number in its mark. */
export function crc16(bytes) {
  let crc = 0xffff;
  for (const byte of bytes) {
    crc ^= byte << 8;
    for (let bit = 0; bit < 8; bit += 1) crc = crc & 0x8000 ? ((crc << 1) ^ 0x1021) & 0xffff : (crc << 1) & 0xffff;
  }
  return crc;
}

export function siteNumber(site) {
  return crc16(new TextEncoder().encode(site));
}

/**
 * Reads the mark out of RGBA pixels; green stands for luma.
 * @returns {{ site: number, timeMs: number } | undefined}
 */
export function readMark(rgba, width, height) {
  const range = (size, first, parts) => {
    const start = Math.min(Math.floor((size * first) / parts), size - 1);
    return [start, Math.max(Math.floor((size * (first + 2)) / parts), start + 1)];
  };
  const cell = (column, row) => {
    const [left, right] = range(width, 4 * (1 + column) + 1, 80);
    const [top, bottom] = range(height, 4 * (10 + row) + 1, 60);
    let sum = 0;
    for (let y = top; y < bottom; y += 1) for (let x = left; x < right; x += 1) sum += rgba[(y * width + x) * 4 + 1];
    return sum / ((right - left) * (bottom - top));
  };
  const references = [0, 17].flatMap((column) => [0, 1, 2, 3].map((row) => ({ column, row })));
  const isWhite = ({ column, row }) => (column === 0) === (row % 2 === 0);
  const mean = (cells) => cells.reduce((sum, { column, row }) => sum + cell(column, row), 0) / cells.length;
  const white = mean(references.filter(isWhite));
  const black = mean(references.filter((reference) => !isWhite(reference)));
  if (white - black < 48) return undefined;
  const threshold = (white + black) / 2;
  if (references.some((reference) => cell(reference.column, reference.row) > threshold !== isWhite(reference))) return undefined;
  const rows = [0, 1, 2, 3].map((row) => {
    let bits = 0;
    for (let column = 1; column <= 16; column += 1) bits = (bits << 1) | (cell(column, row) > threshold ? 1 : 0);
    return bits;
  });
  let crc = 0xffff;
  for (const byte of rows.slice(0, 3).flatMap((bits) => [bits >> 8, bits & 0xff])) {
    crc ^= byte << 8;
    for (let bit = 0; bit < 8; bit += 1) crc = crc & 0x8000 ? ((crc << 1) ^ 0x1021) & 0xffff : (crc << 1) & 0xffff;
  }
  return crc === rows[3] ? { site: rows[0], timeMs: rows[1] * 65536 + rows[2] } : undefined;
}

/** Draws the mark into a luma plane of `width` x `height`. */
export function drawMark(luma, width, height, site, timeMs) {
  const rows = [site, Math.floor(timeMs / 65536) & 0xffff, timeMs & 0xffff];
  rows.push(crc16(rows.flatMap((bits) => [bits >> 8, bits & 0xff])));
  for (let row = 0; row < 4; row += 1) {
    for (let column = 0; column < 18; column += 1) {
      const white =
        column === 0 ? row % 2 === 0 : column === 17 ? row % 2 === 1 : ((rows[row] >> (16 - column)) & 1) === 1;
      const [left, right] = [column + 1, column + 2].map((edge) => Math.floor((width * edge) / 20));
      const [top, bottom] = [row + 10, row + 11].map((edge) => Math.floor((height * edge) / 15));
      for (let y = top; y < bottom; y += 1) luma.fill(white ? 235 : 16, y * width + left, y * width + right);
    }
  }
}

/** A clip for Chromium's fake camera (YUV4MPEG2): the site's mark, its time 200 ms further in each picture. */
export function cameraClip(site, { width = 640, height = 360, pictures = 20, fps = 10 } = {}) {
  const parts = [Buffer.from(`YUV4MPEG2 W${width} H${height} F${fps}:1 Ip A1:1 C420jpeg\n`)];
  for (let picture = 0; picture < pictures; picture += 1) {
    const frame = Buffer.alloc((width * height * 3) / 2, 128);
    const luma = frame.subarray(0, width * height);
    luma.fill(90);
    // A bar that wanders, so that a person sees it move too.
    for (let y = 0; y < height / 2; y += 1) luma.fill(180, y * width + picture * 20, y * width + picture * 20 + 40);
    drawMark(luma, width, height, siteNumber(site), 1_000_000 + picture * 200);
    parts.push(Buffer.from("FRAME\n"), frame);
  }
  return Buffer.concat(parts);
}
