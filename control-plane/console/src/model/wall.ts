// The wall: which sites are on the page in view, in which slots, and where the keyboard is. The order of the sites is the
// tree's and does not change while the meeting lasts: a site that comes back comes back to its place. While a meeting
// polls (轮巡), the page is the one that the control plane says, and the next one is loaded ahead. Invariant: the
// keyboard never slides from one site to another because a page turned by itself.

import { Layout, type Polling } from "../gen/muster/command/v1/types_pb";
import { Cell } from "./cell";
import { SlotPlanner, type SlotPlan } from "./media/slotplan";

/** Pictures beside the large one, of each layout. */
export const LAYOUTS = [
  [Layout.LAYOUT_1, 0],
  [Layout.LAYOUT_1_7, 7],
  [Layout.LAYOUT_4, 4],
  [Layout.LAYOUT_9, 9],
  [Layout.LAYOUT_16, 16],
  [Layout.LAYOUT_25, 25],
  [Layout.LAYOUT_36, 36],
  [Layout.LAYOUT_49, 49],
] as const;
export type TileCount = (typeof LAYOUTS)[number][1];
export const TILE_COUNTS: readonly TileCount[] = LAYOUTS.map(([, tiles]) => tiles);
/** The most slots that a wall has, with those that load ahead. */
export const MOST_SLOTS = 50;

export function tilesOf(layout: Layout): TileCount | undefined {
  return LAYOUTS.find(([known]) => known === layout)?.[1];
}
export function layoutOf(tiles: TileCount): Layout {
  return LAYOUTS.find(([, count]) => count === tiles)?.[0] ?? Layout.LAYOUT_UNSPECIFIED;
}

export interface WallView {
  /** Pictures on a page. */
  tiles: number;
  page: number;
  pages: number;
  /** Sites of the page, at most `tiles`. */
  visible: readonly string[];
  total: number;
}

export class Wall {
  readonly view = new Cell<WallView>({ tiles: 16, page: 0, pages: 1, visible: [], total: 0 });
  readonly slots = new Cell<SlotPlan>({ tiles: [], ahead: [] });
  /** How the meeting polls; undefined while it does not. */
  readonly polling = new Cell<Polling | undefined>(undefined);
  /** Index of the tile with the keyboard, or -1. */
  readonly focus = new Cell(-1);
  /** Tiles in a row, as the view has laid them out. */
  columns = 4;
  private sites: readonly string[] = [];
  private own: { tiles: TileCount; page: number } = { tiles: 16, page: 0 };
  private slotCount = 16;
  private readonly planner = new SlotPlanner();

  setSites(sites: readonly string[]): void {
    if (sites.length === this.sites.length && sites.every((site, at) => site === this.sites[at])) return;
    this.sites = sites;
    this.show();
  }

  setTiles(tiles: TileCount): void {
    // The first site in view stays in view.
    const first = this.own.page * this.own.tiles;
    this.own = { tiles, page: tiles ? Math.floor(first / tiles) : 0 };
    this.show();
  }

  /** How many slots the leg has for the wall. */
  setSlots(count: number): void {
    this.slotCount = count;
    this.show();
  }

  setPolling(polling: Polling | undefined): void {
    if (this.polling.get() === polling) return;
    const focused = this.focused();
    this.polling.set(polling);
    this.show();
    this.focus.set(focused === undefined ? -1 : this.view.get().visible.indexOf(focused));
  }

  turn(by: number): void {
    const { page, pages } = this.view.get();
    if (this.polling.get()) return;
    this.own.page = (page + by + pages) % pages;
    this.show();
  }

  /** Turns to the page of a site and puts the keyboard on its tile; while the wall polls, only if it is in view. */
  reveal(site: string): void {
    if (this.polling.get()) return this.focus.set(this.view.get().visible.indexOf(site));
    const at = this.sites.indexOf(site);
    if (at < 0 || !this.own.tiles) return;
    this.own.page = Math.floor(at / this.own.tiles);
    this.show();
    this.focus.set(at % this.own.tiles);
  }

  /** Moves the keyboard by columns and rows; over the left or right end it turns the page. */
  move(dx: number, dy: number): void {
    const { visible } = this.view.get();
    const from = this.focus.get();
    if (from < 0) return this.focus.set(visible.length ? 0 : -1);
    const to = from + dx + dy * this.columns;
    if (to >= 0 && to < visible.length) return this.focus.set(to);
    if (dx === 0 || this.polling.get()) return;
    this.turn(dx);
    this.focus.set(dx > 0 ? 0 : Math.max(0, this.view.get().visible.length - 1));
  }

  /** Pictures on a page of this wall when nothing is polled. */
  ownTiles(): TileCount {
    return this.own.tiles;
  }

  focused(): string | undefined {
    return this.view.get().visible[this.focus.get()];
  }

  private show(): void {
    const polling = this.polling.get();
    const view = polling ? this.polled(polling) : this.paged();
    if (this.focus.get() >= view.visible.length) this.focus.set(view.visible.length - 1);
    this.slots.set(this.planner.plan(view.visible, polling?.next ?? [], this.slotCount));
    this.view.set(view);
  }

  private polled({ perPage, page, pages, sites }: Polling): WallView {
    const tiles = Math.max(1, perPage || sites.length);
    return { tiles, page, pages: Math.max(1, pages), visible: sites.slice(0, this.slotCount), total: this.sites.length };
  }

  private paged(): WallView {
    const total = this.sites.length;
    const { tiles } = this.own;
    const pages = tiles ? Math.max(1, Math.ceil(total / tiles)) : 1;
    const at = Math.min(Math.max(0, this.own.page), pages - 1);
    this.own.page = at;
    return { tiles, page: at, pages, visible: this.sites.slice(at * tiles, (at + 1) * tiles), total };
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
