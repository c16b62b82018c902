// The open trial, wherever one is: how long is left, and how it ends.

import { Act } from "./act";
import { span } from "./format";
import { acts, now, overview, seenAt } from "./state";

export function Trial({ trial }: { trial: NonNullable<NonNullable<typeof overview.value>["trial"]> }) {
  const left = Math.max(0, trial.ends_in_ms - (now.value - seenAt.value));
  const { revision } = trial;
  return (
    <div class="banner warning trial">
      <p>
        Revision {revision} is on trial: in <strong id="countdown">{span(left)}</strong> the cluster goes back to revision{" "}
        {trial.prior_revision} unless it is confirmed.
      </p>
      {acts.value && (
        <p class="buttons">
          <Act label="Confirm" title={`Keep revision ${revision}`} command={`quorumgate confirm ${revision}`} path={`confirm?revision=${revision}`} />
          <Act label="Abort" title={`Go back to revision ${trial.prior_revision}`} command={`quorumgate abort ${revision}`} path={`abort?revision=${revision}`} danger />
        </p>
      )}
    </div>
  );
}
