/**
 * MEND (Mitchell et al. 2022, "Fast model editing at scale"): a trained network turns the gradient of one edit into
 * a change that also holds for other wordings and leaves the rest alone. Training it is `emend train`; the network
 * is in hypernetworks/mend_network.ts.
 */
import { editorKind } from "./hypernetworks/kinds.ts";
import { trainedMethod } from "./hypernetworks/method.ts";

/** Needs an editor trained for the very model. */
export const mend = trainedMethod(
  editorKind("mend"),
  "MEND (Mitchell et al. 2022): a trained network makes the change from the edit's gradient",
);
