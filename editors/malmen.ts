/**
 * MALMEN (Tan et al. 2024, "Massive editing for large language models via meta learning"): like MEND a trained network
 * reads the gradients of edits, but what they want is joined by least squares, so that hundreds go in at once. Training
 * it is `emend train`; the network is in hypernetworks/malmen_network.ts.
 */
import { editorKind } from "./hypernetworks/kinds.ts";
import { trainedMethod } from "./hypernetworks/method.ts";

/** Needs an editor trained for the very model. */
export const malmen = trainedMethod(
  editorKind("malmen"),
  "MALMEN (Tan et al. 2024): a trained network and one least squares for many edits at once",
);
