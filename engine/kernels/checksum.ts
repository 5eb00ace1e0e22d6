/** Checksums of tensors as they are stored. */
import source from "../../shaders/checksum/checksum.wgsl" with { type: "text" };
import { defineKernel } from "../gpu/kernel.ts";

/** Words that one workgroup takes. */
export const CHECKSUM_WORDS = 4096;

export const checksumKernel = defineKernel({
  name: "checksum",
  source,
  bindings: { words: "read vec4<u32>", sums: "update atomic<u32>" },
  params: { words: "u32", lastMask: "u32", first: "u32", slot: "u32" },
});
