// Tables as CSV (RFC 4180) for the spreadsheet programs of an office: CRLF, quotes where needed, a byte order mark so
// that Chinese opens as Chinese. A cell that a spreadsheet would take for a formula is made text.

export type Cells = readonly (string | number)[];

function cell(value: string | number): string {
  const text = typeof value === "number" ? String(value) : /^[=+\-@\t\r]/.test(value) ? `'${value}` : value;
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

export function csv(rows: readonly Cells[]): string {
  return `\uFEFF${rows.map((row) => row.map(cell).join(",")).join("\r\n")}\r\n`;
}

/** A name for a file: the words, without what file systems dislike. */
export function fileName(...words: string[]): string {
  return `${words.join("-").replace(/[\\/:*?"<>|\s]+/g, "-").replace(/^[.-]+/, "")}.csv`;
}
