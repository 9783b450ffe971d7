// The wall: which sites are on the page in view, and where the keyboard is. Tile i of the wall always uses slot i, so
// that turning a page changes wishes only. The order of the sites is the tree's and does not change while the meeting
// lasts: a site that comes back comes back to its place.

import { Cell } from "./cell";

export const TILE_COUNTS = [4, 9, 16, 25, 36, 49] as const;
export type TileCount = (typeof TILE_COUNTS)[number];

export interface WallView {
  tiles: TileCount;
  page: number;
  pages: number;
  /** Sites of the page, at most `tiles`. */
  visible: string[];
  total: number;
}

export class Wall {
  readonly view = new Cell<WallView>({ tiles: 16, page: 0, pages: 1, visible: [], total: 0 });
  /** Index of the tile with the keyboard, or -1. */
  readonly focus = new Cell(-1);
  /** Tiles in a row, as the view has laid them out. */
  columns = 4;
  private sites: readonly string[] = [];

  setSites(sites: readonly string[]): void {
    if (sites.length === this.sites.length && sites.every((site, at) => site === this.sites[at])) return;
    this.sites = sites;
    this.show(this.view.get().tiles, this.view.get().page);
  }

  setTiles(tiles: TileCount): void {
    const { page, tiles: before } = this.view.get();
    // The first site in view stays in view.
    this.show(tiles, Math.floor((page * before) / tiles));
  }

  turn(by: number): void {
    const { tiles, page, pages } = this.view.get();
    this.show(tiles, (page + by + pages) % pages);
  }

  /** Turns to the page of a site and puts the keyboard on its tile. */
  reveal(site: string): void {
    const at = this.sites.indexOf(site);
    if (at < 0) return;
    const { tiles } = this.view.get();
    this.show(tiles, Math.floor(at / tiles));
    this.focus.set(at % tiles);
  }

  /** Moves the keyboard by columns and rows; over the left or right end it turns the page. */
  move(dx: number, dy: number): void {
    const { visible } = this.view.get();
    const from = this.focus.get();
    if (from < 0) return this.focus.set(visible.length ? 0 : -1);
    const to = from + dx + dy * this.columns;
    if (to >= 0 && to < visible.length) return this.focus.set(to);
    if (dx === 0) return;
    this.turn(dx);
    this.focus.set(dx > 0 ? 0 : Math.max(0, this.view.get().visible.length - 1));
  }

  focused(): string | undefined {
    return this.view.get().visible[this.focus.get()];
  }

  private show(tiles: TileCount, page: number): void {
    const total = this.sites.length;
    const pages = Math.max(1, Math.ceil(total / tiles));
    const at = Math.min(Math.max(0, page), pages - 1);
    const visible = this.sites.slice(at * tiles, (at + 1) * tiles);
    if (this.focus.get() >= visible.length) this.focus.set(visible.length - 1);
    this.view.set({ tiles, page: at, pages, visible, total });
  }
}

/** Pixels of width in which the name of a community fits. */
const READABLE = 88;
/** Pixels of the caption below the large picture. */
export const STAGE_CAPTION = 30;
/** Narrower tiles have a smaller caption, with less in it. */
const TIGHT = 100;

/** Pixels of the caption below a tile's picture. */
const captionOf = (width: number): number => (width < TIGHT ? 16 : 22);
const pictureHeight = (width: number): number => Math.floor((width * 9) / 16);

/** Whole pixels; the picture is 16:9, its caption is below it. */
export type Tiles = { columns: number; width: number; picture: number; caption: number; tight: boolean };

/** Columns and size with which `count` tiles are largest in a room of the given size. */
export function fit(width: number, height: number, count: number, gap: number): Tiles {
  let best = { columns: 1, width: 0 };
  for (let columns = 1; columns <= count; columns += 1) {
    const lines = Math.ceil(count / columns);
    const wide = Math.floor((width - gap * (columns - 1)) / columns);
    const high = Math.floor((height - gap * (lines - 1)) / lines);
    const widest = (caption: number): number => Math.floor((Math.max(0, high - caption) * 16) / 9);
    let tile = Math.min(wide, widest(captionOf(TIGHT)));
    if (tile < TIGHT) tile = Math.min(wide, widest(captionOf(0)), TIGHT - 1);
    if (tile > best.width) best = { columns, width: tile };
  }
  return { ...best, picture: pictureHeight(best.width), caption: captionOf(best.width), tight: best.width < TIGHT };
}

/**
 * How high the stage is, with its caption, above a wall of `count` tiles, in a room without its bars: so that the pictures
 * have the largest area, the stage takes between a third and two thirds of the height, and is the largest. Tiles in which a name can be
 * read come before area. Beside the stage `aside` pixels stay free.
 */
export function stageHeight(width: number, height: number, count: number, gap: number, aside: number): number {
  const most = Math.floor(Math.min(height * 0.66, ((width - aside) * 9) / 16 + STAGE_CAPTION));
  let best = { height: Math.max(0, most), area: 0, readable: false };
  for (let stage = Math.min(most, Math.ceil(height * 0.36)); stage <= most; stage += 4) {
    const { width: tile, picture } = fit(width, height - stage, count, gap);
    const area = ((stage - STAGE_CAPTION) ** 2 * 16) / 9 + count * tile * picture;
    const readable = tile >= READABLE;
    if ((best.readable && !readable) || picture > stage - STAGE_CAPTION) continue;
    if (area > best.area || (readable && !best.readable)) best = { height: stage, area, readable };
  }
  return best.height;
}
