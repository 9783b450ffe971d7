import { create } from "@bufbuild/protobuf";
import { describe, expect, it } from "vitest";
import { MeetingSchema, UnitSchema } from "../src/gen/muster/command/v1/types_pb";
import { nameParts, titleOf } from "../src/model/names";

describe("names", () => {
  it("keep the number that tells two communities apart", () => {
    expect(nameParts("佛祖岭社区03会场")).toEqual({ head: "佛祖岭社区", number: "03", rest: "会场" });
    expect(nameParts("Fozuling community 03 room")).toEqual({ head: "Fozuling community", number: " 03", rest: " room" });
    expect(nameParts("City command centre")).toEqual({ head: "City command centre", number: "", rest: "" });
    for (const name of ["Block 12 room 7", "7", "a1", ""]) {
      const { head, number, rest } = nameParts(name);
      expect(head + number + rest).toBe(name);
    }
  });

  it("translate a title that nobody thought of, and no other", () => {
    const units = [create(UnitSchema, { id: "WH", nameZh: "武汉市", nameEn: "Wuhan" })];
    const say = (title: string): string => titleOf(create(MeetingSchema, { title }), units, (unit) => unit.nameEn);
    expect(say("武汉市 04:12")).toBe("Wuhan 04:12");
    expect(say("Wuhan 04:12")).toBe("Wuhan 04:12");
    expect(say("防汛会商 04:12")).toBe("防汛会商 04:12");
    expect(say("武汉市防汛")).toBe("武汉市防汛");
  });
});
