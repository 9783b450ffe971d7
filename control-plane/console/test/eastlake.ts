import { readFileSync } from "node:fs";
import { Directory } from "../src/model/directory";
import { readTree } from "./mock/tree";

export const tree = readTree(readFileSync(new URL("../../../data/eastlake.csv", import.meta.url), "utf8"));
export const eastLake = (): Directory => new Directory(tree.units, tree.sites);
