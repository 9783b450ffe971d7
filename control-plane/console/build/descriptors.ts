// Makes protobuf's descriptors small: the generated code carries each file's descriptor as base64, which hardly
// compresses, and needs the descriptors of descriptors (24 kB) to read it. This plugin decodes them when the pages are built,
// writes them as plain arrays, and puts a reader of those in the place of the library's. Types and tests are not
// concerned: both use the library as it is. What the arrays cannot say fails the build.

import { fromBinary } from "@bufbuild/protobuf";
import { base64Decode } from "@bufbuild/protobuf/wire";
import {
  FileDescriptorProtoSchema,
  type DescriptorProto,
  type EnumDescriptorProto,
  type FieldDescriptorProto,
  type FileDescriptorProto,
  type ServiceDescriptorProto,
} from "@bufbuild/protobuf/wkt";
import type { Plugin } from "vite";

function field(of: FieldDescriptorProto): unknown[] {
  if (of.defaultValue || of.extendee || of.options) throw new Error(`field ${of.name}: not written by this plugin`);
  const oneof = Object.hasOwn(of, "oneofIndex") ? of.oneofIndex : -1;
  return trimmed([of.name, of.number, of.type, of.label, of.typeName, oneof, of.proto3Optional ? 1 : 0], [, , , 1, "", -1, 0]);
}
function message(of: DescriptorProto): unknown[] {
  if (of.extension.length > 0) throw new Error(`message ${of.name}: extensions are not written by this plugin`);
  return trimmed([of.name, of.field.map(field), of.nestedType.map(message), of.enumType.map(enumeration), of.oneofDecl.map(({ name }) => name), of.options?.mapEntry ? 1 : 0], [, , [], [], [], 0]);
}
const enumeration = (of: EnumDescriptorProto): unknown[] => [of.name, of.value.map(({ name, number }) => [name, number])];
const service = (of: ServiceDescriptorProto): unknown[] => [
  of.name,
  of.method.map(({ name, inputType, outputType, clientStreaming, serverStreaming }) => [name, inputType, outputType, (clientStreaming ? 1 : 0) + (serverStreaming ? 2 : 0)]),
];

/** Leaves out what is as it is by default at the end. */
function trimmed(values: unknown[], defaults: readonly unknown[]): unknown[] {
  const list = values.slice();
  while (list.length > 0 && defaults[list.length - 1] !== undefined && JSON.stringify(list[list.length - 1]) === JSON.stringify(defaults[list.length - 1])) list.pop();
  return list;
}

function written(file: FileDescriptorProto): unknown[] {
  if (file.extension.length > 0 || file.syntax !== "proto3") throw new Error(`${file.name}: not written by this plugin`);
  return [file.name, file.package, file.syntax, file.messageType.map(message), file.enumType.map(enumeration), file.service.map(service)];
}

/** Of the libraries' own files. */
const USED = /^(status|google\/protobuf\/any)\.proto$/;

/** In the place of `codegenv2/file.js`. */
const READER = `
import { createFileRegistry } from "../registry.js";
import { restoreJsonNames } from "./restore-json-names.js";
const name = "google.protobuf.";
const made = (type, defaults, values) => Object.assign(Object.create(defaults), { $typeName: name + type }, values);
const FIELD = { label: 1, typeName: "", extendee: "", defaultValue: "", oneofIndex: 0, jsonName: "", proto3Optional: false };
const field = ([name, number, type, label = 1, typeName = "", oneof = -1, optional = 0]) =>
  made("FieldDescriptorProto", FIELD, { name, number, type, label, typeName, ...(oneof < 0 ? {} : { oneofIndex: oneof }), proto3Optional: optional === 1 });
const value = ([name, number]) => made("EnumValueDescriptorProto", {}, { name, number });
const enumeration = ([name, values]) => made("EnumDescriptorProto", { visibility: 0 }, { name, value: values.map(value), reservedName: [], reservedRange: [] });
const message = ([name, fields, nested = [], enums = [], oneofs = [], map = 0]) =>
  made("DescriptorProto", { visibility: 0 }, {
    name, field: fields.map(field), nestedType: nested.map(message), enumType: enums.map(enumeration), extension: [], extensionRange: [],
    oneofDecl: oneofs.map((name) => made("OneofDescriptorProto", {}, { name })), reservedRange: [], reservedName: [],
    ...(map ? { options: made("MessageOptions", {}, { mapEntry: true, deprecated: false }) } : {}),
  });
const method = ([name, inputType, outputType, streams]) =>
  made("MethodDescriptorProto", {}, { name, inputType, outputType, clientStreaming: (streams & 1) > 0, serverStreaming: (streams & 2) > 0 });
const service = ([name, methods]) => made("ServiceDescriptorProto", {}, { name, method: methods.map(method) });
export function fileDesc(file, imports = []) {
  if (typeof file === "string") throw new Error("this file is not part of the build");
  const [path, pack, syntax, messages, enums, services] = file;
  const root = made("FileDescriptorProto", { syntax: "", edition: 0 }, {
    name: path, package: pack, syntax, dependency: imports.map((file) => file.proto.name), publicDependency: [], weakDependency: [], optionDependency: [],
    messageType: messages.map(message), enumType: enums.map(enumeration), service: services.map(service), extension: [],
  });
  root.messageType.forEach(restoreJsonNames);
  return createFileRegistry(root, (wanted) => imports.find((file) => file.proto.name === wanted)).getFile(path);
}
`;

export function smallDescriptors(): Plugin {
  return {
    name: "small-descriptors",
    apply: "build",
    enforce: "pre",
    load(id) {
      return /@bufbuild\/protobuf\/dist\/esm\/codegenv2\/file\.js$/.test(id) ? READER : undefined;
    },
    transform(code, id) {
      if (!/_pb\.(js|ts)$/.test(id)) return undefined;
      const found = /fileDesc\("([A-Za-z0-9+/=]+)"/.exec(code);
      if (!found) return undefined;
      const file = fromBinary(FileDescriptorProtoSchema, base64Decode(found[1] ?? ""));
      // The library has more files than the pages use; the bundler leaves those out.
      if (id.includes("node_modules") && !USED.test(file.name)) return undefined;
      const literal = JSON.stringify(written(file));
      return { code: code.replace(found[0], () => `fileDesc(${literal}`), map: null };
    },
  };
}
