"""From boxes and scores to detections: exact greedy suppression of what overlaps, with fixed shapes.

Greedy: candidates by falling score; one is kept unless it overlaps one that was kept. It runs in tiles of the order of
scores and ends as soon as enough are kept, so it costs by what is found and not by anchors times classes. In a tile the
greedy choice is the fixed point of "kept is what nobody kept suppresses", which is reached in as many rounds as the
longest chain of boxes that suppress each other, most often three or four.
"""

import dataclasses

import jax
import jax.numpy as jnp

from mnet_jax.tasks.detection import coding

TILE = 384  # candidates that are looked at together: 384 x 384 overlaps; of 128 to 512 the quickest on a CPU


@dataclasses.dataclass(frozen=True, kw_only=True)
class Suppression:
    """What is taken for a detection; the defaults are those of torchvision's SSDLite."""

    score_threshold: float = 0.001  # scores above it are candidates
    at_least: bool = False  # those that equal it too, as in the TFLite operation
    iou_threshold: float = 0.55  # a candidate that overlaps by more is suppressed
    per_class: bool = True  # by others of its class; False: by all, and of an anchor only the best class is taken
    candidates: int | None = 300  # of a class those with the highest scores; None: all
    max_detections: int = 300  # the best of all classes

    def __call__(self, boxes: jax.Array, scores: jax.Array) -> dict[str, jax.Array]:
        """Returns the detections of images, by falling score; of equal scores by anchor, then by class.

        Args:
          boxes: float32 [B, A, 4].
          scores: float32 [B, A, C], of the classes without the background.

        Returns:
          boxes float32 [B, D, 4], scores float32 [B, D] and classes int32 [B, D] for D = `max_detections`, 0 after the
          first `count` int32 [B].
        """
        return jax.vmap(self._of_image)(boxes, scores)

    def _of_image(self, boxes: jax.Array, scores: jax.Array) -> dict[str, jax.Array]:
        all_scores = scores
        if not self.per_class:
            scores = scores.max(-1, keepdims=True)
        num_anchors, num_classes = scores.shape
        wanted = scores >= self.score_threshold if self.at_least else scores > self.score_threshold
        wanted = wanted & jnp.all(jnp.isfinite(boxes), -1, keepdims=True)
        scores = jnp.where(wanted, scores, -jnp.inf)
        size, most = min(TILE, num_anchors * num_classes), self.max_detections
        earlier = jnp.arange(size)[:, None] < jnp.arange(size)[None]

        def unfinished(state: dict[str, jax.Array]) -> jax.Array:
            return state["more"] & (state["count"] < most)

        def tile(state: dict[str, jax.Array]) -> dict[str, jax.Array]:
            score, place = _next(scores, state["score"], state["place"], size)
            classes, box = place % num_classes, boxes[place // num_classes]
            candidate = score > -jnp.inf
            same = classes[:, None] == classes[None]
            seen = state["seen"]
            if self.candidates is not None:
                rank = seen[classes] + jnp.sum(same & earlier & candidate[:, None], 0)
                seen = seen.at[classes].add(candidate.astype(jnp.int32))
                candidate &= rank < self.candidates
            kept = jnp.arange(most) < state["count"]
            gone = self._suppresses(state["boxes"], box)
            gone &= (state["classes"][:, None] == classes[None]) & kept[:, None]
            alive = candidate & ~jnp.any(gone, 0)
            suppresses = self._suppresses(box, box) & same & earlier
            chosen = _greedy(alive, suppresses)
            # The slot that comes after n kept ones takes the (n + 1)-th chosen of this tile.
            total = jnp.cumsum(chosen)
            order = jnp.arange(most) - state["count"]
            source = jnp.minimum(jnp.searchsorted(total, order + 1), size - 1)
            new = (order >= 0) & (order < total[-1])
            return {
                "boxes": jnp.where(new[:, None], box[source], state["boxes"]),
                "scores": jnp.where(new, score[source], state["scores"]),
                "classes": jnp.where(new, classes[source], state["classes"]),
                "anchors": jnp.where(new, (place // num_classes)[source], state["anchors"]),
                "count": jnp.minimum(state["count"] + total[-1], most),
                "seen": seen,
                "score": score[-1],
                "place": place[-1],
                "more": score[-1] > -jnp.inf,
            }

        start = {
            "boxes": jnp.zeros((most, 4), jnp.float32),
            "scores": jnp.zeros((most,), jnp.float32),
            "classes": jnp.zeros((most,), jnp.int32),
            "anchors": jnp.zeros((most,), jnp.int32),
            "count": jnp.zeros((), jnp.int32),
            "seen": jnp.zeros((num_classes,), jnp.int32),  # candidates of each class in earlier tiles
            "score": jnp.array(jnp.inf, jnp.float32),  # the last one of the tile before, by score and place
            "place": jnp.array(-1, jnp.int32),
            "more": jnp.array(True),
        }
        found = jax.lax.while_loop(unfinished, tile, start)
        classes = found["classes"] if self.per_class else all_scores[found["anchors"]].argmax(-1)
        classes = jnp.where(jnp.arange(most) < found["count"], classes, 0).astype(jnp.int32)
        return {"classes": classes, **{name: found[name] for name in ("boxes", "scores", "count")}}

    def _suppresses(self, first: jax.Array, second: jax.Array) -> jax.Array:
        """Returns which of the boxes [N, 4] overlap which of [M, 4] by too much, bool [N, M]."""
        return coding.iou(first, second) > self.iou_threshold


def _next(scores: jax.Array, score: jax.Array, place: jax.Array, size: int) -> tuple[jax.Array, jax.Array]:
    """Returns scores [size] and places [size] (anchor x classes + class) of what comes after (score, place).

    In the order of falling scores, of equals by place; what is not there has a score of -inf. Only anchors whose best
    class is among the best `size` can have one of the best `size` scores, so that of most anchors the other classes
    are not sorted.

    Args:
      scores: float32 [A, C], -inf where there is no candidate.
      score: of the last one before.
      place: its place.
      size: how many.
    """
    num_anchors, num_classes = scores.shape

    def left(values: jax.Array, anchors: jax.Array) -> jax.Array:
        """Returns the scores of some anchors, [N, C], -inf where they do not come after."""
        places = anchors[:, None] * num_classes + jnp.arange(num_classes, dtype=jnp.int32)[None]
        return jnp.where((values < score) | ((values == score) & (places > place)), values, -jnp.inf)

    every = jnp.arange(num_anchors, dtype=jnp.int32)
    if num_anchors <= size:
        return _top(left(scores, every).ravel(), size)
    anchors = jnp.sort(_top(left(scores, every).max(-1), size)[1])
    found, index = _top(left(scores[anchors], anchors).ravel(), size)
    return found, (anchors[index // num_classes] * num_classes + index % num_classes).astype(jnp.int32)


def _top(scores: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
    """Returns the `count` highest scores of [N] and their places int32, of equals the first.

    Without the barrier XLA joins a later slice with it and no longer sees a top-k on the CPU: it sorts, at ten times
    the cost. Each result has a barrier of its own: of one around both, XLA makes a tuple that its pass over top-k ends
    the process on (jax 0.10, where it sorts instead: in a program for two CPU devices).
    """
    found, index = jax.lax.top_k(scores, count)
    return jax.lax.optimization_barrier(found), jax.lax.optimization_barrier(index)


def _greedy(alive: jax.Array, suppresses: jax.Array) -> jax.Array:
    """Returns what greedy suppression keeps, bool [N], of boxes in the order of their scores.

    Args:
      alive: bool [N], what may be kept.
      suppresses: bool [N, N], [i, j]: whether i, if it is kept, suppresses j; true only for i < j.
    """
    matrix = suppresses.astype(jnp.float32)

    def again(state: tuple[jax.Array, jax.Array]) -> jax.Array:
        return state[1]

    def refine(state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        kept, _ = state
        better = alive & ~(kept.astype(jnp.float32) @ matrix > 0)
        return better, jnp.any(better != kept)

    return jax.lax.while_loop(again, refine, (alive, jnp.array(True)))[0]
