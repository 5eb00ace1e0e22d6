/**
 * Neutral prompts and prose: everyday facts and scenes, written for emend, with no named person and nothing
 * that editing benchmarks ask. What an edit does to them is damage. Numbers from different versions of the
 * text do not compare.
 */
import data from "./neutral.json" with { type: "json" };

/** The neutral texts. */
export interface Neutral {
  version: number;
  /** 40 beginnings of sentences. */
  prompts: readonly string[];
  /** Eight paragraphs of some 75 words on unrelated things. */
  passages: readonly string[];
}

export const NEUTRAL: Neutral = data;

/**
 * Which passages are read: the first is an alarm that can ring after every edit, all eight are for a look
 * now and then (guide section 12).
 */
export type NeutralText = "short" | "whole";

/** Passages of the short text: what it costs is paid after every edit of a run. */
const SHORT = 1;

/** The passages of a text. */
export function passagesOf(text: NeutralText): readonly string[] {
  return text === "short" ? NEUTRAL.passages.slice(0, SHORT) : NEUTRAL.passages;
}
