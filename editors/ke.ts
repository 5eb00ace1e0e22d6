/**
 * KE (De Cao et al. 2021, "Editing factual knowledge in language models") as published tables of decoders have it: the
 * variant "EFK" of MEND's authors, trained with MEND's loss on MEND's maps and not with the constrained objective
 * (memory-and-meta guide section 3.6). Training it is `emend train`; the network is in hypernetworks/ke_network.ts.
 */
import { editorKind } from "./hypernetworks/kinds.ts";
import { trainedMethod } from "./hypernetworks/method.ts";

/** Needs an editor trained for the very model. */
export const keEfk = trainedMethod(
  editorKind("ke-efk"),
  "KE, EFK variant (De Cao et al. 2021; Mitchell et al. 2022): an LSTM reads the edit and gates its gradient",
);
