import { describe, expect, it } from "vitest";
import { duration } from "../src/model/clock";
import { fit, stageHeight, Wall } from "../src/model/wall";

const names = (count: number): string[] => Array.from({ length: count }, (_, at) => `s${at}`);

describe("the wall", () => {
  it("pages through all sites and round again", () => {
    const wall = new Wall();
    wall.setSites(names(140));
    const seen: string[] = [];
    for (let page = 0; page < 9; page += 1) {
      seen.push(...wall.view.get().visible);
      wall.turn(1);
    }
    expect(seen).toEqual(names(140));
    expect(wall.view.get().page).toBe(0);
  });

  it("keeps the first site in view when the number of tiles changes", () => {
    const wall = new Wall();
    wall.setSites(names(140));
    wall.turn(3);
    wall.setTiles(9);
    expect(wall.view.get().visible).toContain("s48");
  });

  it("moves the keyboard over the edge onto the next page", () => {
    const wall = new Wall();
    wall.setSites(names(20));
    wall.reveal("s15");
    wall.move(1, 0);
    expect(wall.focused()).toBe("s16");
    wall.move(-1, 0);
    expect(wall.focused()).toBe("s15");
  });

  it("does not change when the same sites are set again", () => {
    const wall = new Wall();
    wall.setSites(names(20));
    const view = wall.view.get();
    wall.setSites(names(20));
    expect(wall.view.get()).toBe(view);
  });

  it("fits every number of tiles into the room, the pictures in 16:9 and whole above their captions", () => {
    const narrow: boolean[] = [];
    for (const count of [1, 4, 9, 12, 16, 25, 36, 49]) {
      const { columns, width, picture, caption, tight } = fit(728, 330, count, 3);
      expect(columns * width + 3 * (columns - 1)).toBeLessThanOrEqual(728);
      expect(Math.ceil(count / columns) * (picture + caption + 3) - 3).toBeLessThanOrEqual(330);
      expect(Math.abs(width / picture - 16 / 9)).toBeLessThan(0.06);
      expect(caption).toBe(tight ? 16 : 22);
      expect(width).toBeGreaterThan(60);
      narrow.push(tight);
    }
    expect(narrow).toEqual([false, false, false, false, false, false, true, true]);
    expect(fit(300, 10, 4, 3)).toMatchObject({ width: 0, picture: 0 });
  });

  it("leaves the stage between a third and two thirds of the height", () => {
    for (const count of [1, 4, 9, 16, 25, 36, 49]) {
      const share = stageHeight(728, 570, count, 3, 188) / 570;
      expect(share).toBeGreaterThan(0.35);
      expect(share).toBeLessThan(0.67);
    }
  });
});

describe("durations", () => {
  it.each([[0, "0:00"], [7_000, "0:07"], [760_000, "12:40"], [11_232_000, "3:07:12"], [-5, "0:00"]])("%d ms is %s", (ms, text) => {
    expect(duration(ms)).toBe(text);
  });
});
