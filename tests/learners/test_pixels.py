"""What one-shot segmentation is compared with: cases worked out by hand, scikit-learn's fits."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

import metashot
from metashot.base import Episode, Examples, Learner
from metashot.nets import Cells, area_means, fcn_cells, joined_cells, projected, stored_maps
from metashot.nets.branches import half_pixel_bilinear

pytestmark = pytest.mark.usefixtures("quick_compile")

NOTHING: Any = {"params": {}, "state": {}}
SIDE = 8  # of a picture, of 4x4 cells


def as_they_are(size: int = SIDE) -> Cells:
    """Cells whose features are the inputs."""
    return Cells(stored_maps(), area_means, half_pixel_bilinear, lambda _: (size, size))


def row(features: Any, labels: Any) -> Examples:
    """One picture whose cells, and pixels, stand in a row."""
    inputs = jnp.asarray(features, jnp.float32)[None, None]
    return Examples(inputs, jnp.asarray(labels, jnp.int32)[None, None], jnp.ones(1, bool))


def in_a_row() -> Cells:
    return Cells(stored_maps(), area_means, half_pixel_bilinear, lambda x: x.shape[1:3])


def blobs(seed: int, n: int, lean: float = 0.8) -> Examples:
    """Pictures of cells with features that lean to the class where the mask has it."""
    rng = np.random.default_rng(seed)
    cells = rng.random((n, 4, 4)) < 0.4
    cells[:, 0, 0], cells[:, 0, 1] = True, False
    inputs = rng.normal(size=(n, 4, 4, 6)) + lean * cells[..., None]
    targets = np.kron(cells, np.ones((1, 2, 2))).astype(np.int32)
    return Examples(*map(jnp.asarray, (inputs.astype(np.float32), targets, np.ones(n, bool))))


def answers(learner: Learner, support: Examples, query: Examples, variables: Any = NOTHING) -> Any:
    ask = lambda v, s, x: learner.predict(v, learner.adapt(v, s, jax.random.key(0)), x)
    return np.asarray(jax.jit(ask)(variables, support, query.inputs))


def coarse(enlarged: np.ndarray) -> np.ndarray:
    """What cells were enlarged to pixels by half-pixel bilinear filters, undone."""
    n, side = len(enlarged), enlarged.shape[1]
    matrix = np.asarray(
        half_pixel_bilinear(jnp.eye(side // 2).reshape(-1, 1, side // 2), (1, side))
    )
    back = np.linalg.pinv(matrix[:, 0].T)  # [cells, pixels]
    return np.einsum("hH,nHW,wW->nhw", back, enlarged, back).reshape(n, -1)


class TestNearest:
    def test_the_first_of_two_equally_near_cells_counts(self) -> None:
        """Case A15: both squared distances are 1, so the answer is the first's label."""
        support = row([[1, 1], [0, 0]], [1, 0])
        told = answers(metashot.nearest_cell(cells=in_a_row()), support, row([[1, 0]], [0]))
        assert told.tolist() == [[[1.0]]]
        turned = row([[0, 0], [1, 1]], [0, 1])
        told = answers(metashot.nearest_cell(cells=in_a_row()), turned, row([[1, 0]], [0]))
        assert told.tolist() == [[[-1.0]]]

    def test_it_is_scikit_learns(self) -> None:
        support, query = blobs(0, 3), blobs(1, 2)
        labels = np.asarray(support.targets)[:, ::2, ::2].ravel()
        oracle = KNeighborsClassifier(1).fit(np.reshape(support.inputs, (-1, 6)), labels)
        expected = 2 * oracle.predict(np.reshape(query.inputs, (-1, 6))).reshape(2, -1) - 1
        told = coarse(answers(metashot.nearest_cell(cells=as_they_are()), support, query))
        np.testing.assert_allclose(told, expected, atol=1e-4)


class TestLogistic:
    @pytest.mark.parametrize(("c", "threshold"), [(1.0, 0.5), (100.0, 0.2)])
    def test_it_is_scikit_learns(self, c: float, threshold: float) -> None:
        support, query = blobs(0, 3), blobs(1, 2)
        labels = np.asarray(support.targets)[:, ::2, ::2].ravel()
        oracle = LogisticRegression(C=c, tol=1e-10, max_iter=10000)
        oracle.fit(np.reshape(support.inputs, (-1, 6)), labels)
        learner = metashot.logistic_cells(
            cells=as_they_are(), c=c, threshold=threshold, tolerance=1e-6
        )
        task = jax.jit(learner.adapt)(NOTHING, support)
        np.testing.assert_allclose(task["weights"], oracle.coef_[0], rtol=2e-3, atol=2e-3)
        np.testing.assert_allclose(task["bias"], oracle.intercept_[0], rtol=2e-3, atol=2e-3)
        logits = oracle.decision_function(np.reshape(query.inputs, (-1, 6))).reshape(2, -1)
        expected = logits - np.log(threshold / (1 - threshold))
        told = coarse(answers(learner, support, query))
        np.testing.assert_allclose(told, expected, rtol=0.01, atol=0.01)


def test_masked_average_compares_with_the_class_and_its_background() -> None:
    """Of unit vectors: the class is the first, the background the mean of the others."""
    support = row([[1, 0], [0, 1], [-0.6, 0.8]], [1, 0, 0])
    query = row([[2, 0], [0, 3], [0.6, 0.8]], [0, 0, 0])
    of_class, background = np.array([1, 0]), np.array([-0.6, 1.8]) / np.sqrt(0.36 + 3.24)
    unit = np.array([[1, 0], [0, 1], [0.6, 0.8]])
    told = answers(metashot.masked_average(cells=in_a_row()), support, query)
    np.testing.assert_allclose(told[0, 0], unit @ (of_class - background), rtol=1e-5)
    told = answers(metashot.masked_average(cells=in_a_row(), threshold=0.3), support, query)
    np.testing.assert_allclose(told[0, 0], unit @ of_class - 0.3, atol=1e-6)


class TestSiamese:
    def test_the_label_of_the_most_similar_cell(self) -> None:
        """Case A15: scores -2 and 1."""
        learner = metashot.siamese_cells(cells=in_a_row())
        metric = {"weights": jnp.array([1.0, -2.0]), "bias": jnp.zeros(())}
        variables: Any = {"params": {"network": {}, "metric": metric}, "state": {"network": {}}}
        support, query = row([[1, 1], [0, 0]], [1, 0]), row([[1, 0]], [0])
        assert answers(learner, support, query, variables).tolist() == [[[-1.0]]]

    @pytest.mark.parametrize("balanced", [False, True])
    def test_the_loss_is_of_pairs_of_cells(self, balanced: bool) -> None:
        learner = metashot.siamese_cells(cells=in_a_row(), keep=1.0, balanced=balanced)
        support, query = row([[1, 1], [0, 0]], [1, 0]), row([[1, 0], [0.5, 0.5]], [1, 0])
        weights = np.array([1.0, -2.0])
        metric = {"weights": jnp.asarray(weights), "bias": jnp.asarray(0.25)}
        variables: Any = {"params": {"network": {}, "metric": metric}, "state": {"network": {}}}
        found, _ = learner.loss(variables, Episode(support, query), jax.random.key(0))
        apart = np.abs(np.asarray(query.inputs)[0, 0][:, None] - np.asarray(support.inputs)[0, 0])
        scores = apart @ weights + 0.25
        # Class and class, class and background, background and class, twice background.
        losses = np.log1p(np.exp([-scores[0, 0], scores[0, 1], scores[1, 0], -scores[1, 1]]))
        shares = [1 / 3, 1 / 6, 1 / 6, 1 / 3] if balanced else [1 / 4] * 4
        assert float(found) == pytest.approx(float(losses @ shares), rel=1e-5)


class TestClassifier:
    def made(self) -> tuple[Learner, Any, Examples]:
        cells = projected(as_they_are(), 5)
        learner = metashot.pixel_classifier(cells=cells, way=3)
        batch = blobs(0, 4)
        labels = jnp.where(jnp.arange(4)[:, None, None] < 2, batch.targets, 2 * batch.targets)
        query = batch._replace(targets=labels.at[:, 0].set(-1))
        episode = Episode(jax.tree.map(lambda x: x[:0], query), query)
        return learner, learner.init(jax.random.key(0), episode), query

    def test_its_loss_is_that_of_cells_that_count(self) -> None:
        learner, variables, query = self.made()
        empty = jax.tree.map(lambda x: x[:0], query)
        loss, aux = jax.jit(learner.loss)(variables, Episode(empty, query), jax.random.key(0))
        own = variables["params"]["network"]["project"]
        z = np.asarray(query.inputs) @ np.asarray(own["kernel"]) + np.asarray(own["bias"])
        z = (z - z.mean((0, 1, 2))) / np.sqrt(z.var((0, 1, 2)) + 1e-3)
        head = variables["params"]["head"]
        logits = np.maximum(z, 0) @ np.asarray(head["kernel"]) + np.asarray(head["bias"])
        logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        labels = np.asarray(query.targets)[:, 1::2, ::2]  # the second row of each cell counts
        weights = np.broadcast_to(np.array([0.5, 1, 1, 1])[:, None], labels.shape[1:])
        picked = np.take_along_axis(logs, labels[..., None], -1)[..., 0]
        expected = -(picked * weights).sum() / (4 * weights.sum())
        assert float(loss) == pytest.approx(expected, rel=1e-4)
        assert jax.tree.structure(aux.state) == jax.tree.structure(variables["state"])

    def test_fine_tuning_makes_a_one_shot_learner_of_it(self) -> None:
        learner, variables, _ = self.made()
        support, query = blobs(2, 4, lean=2.0), blobs(3, 2, lean=2.0)
        tuned = metashot.fine_tune(learner, optax.sgd(0.3, momentum=0.9), 60, way=2)
        told = coarse(answers(tuned, support, query, variables)).reshape(2, 4, 4)
        assert ((told > 0) == (query.targets[:, ::2, ::2] > 0)).mean() > 0.9


def test_joined_cells_are_unit_vectors_side_by_side() -> None:
    maps = (jnp.ones((1, 4, 4, 3)), 2 * jnp.ones((1, 2, 2, 1)))
    z = joined_cells(stored_maps(), answers=(8, 8)).network.apply(NOTHING, maps)[0]
    np.testing.assert_allclose(z[0, 0, 0], [3**-0.5] * 3 + [1.0], rtol=1e-6)


def test_a_support_without_the_class_marks_nothing() -> None:
    support = blobs(0, 2)._replace(targets=jnp.zeros((2, SIDE, SIDE), jnp.int32))
    cells = as_they_are()
    for learner in (
        metashot.nearest_cell(cells=cells),
        metashot.logistic_cells(cells=cells),
        metashot.masked_average(cells=cells),
    ):
        assert not (answers(learner, support, blobs(1, 2)) > 0).any()


def test_cells_of_the_papers_size() -> None:
    """Cell x of FCN-32s with 121 zeros around 64 pixels is around pixel 32 x - 8.5."""
    cells = fcn_cells()
    x = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    variables = jax.eval_shape(cells.network.init, jax.random.key(0), x)
    maps = jax.eval_shape(lambda v, x: cells.network.apply(v, x)[0], variables, x)
    assert maps.shape == (1, 4, 4, 4096)
    mask = jnp.zeros((1, 64, 64)).at[:, 8:40, 8:40].set(1)  # pixels around 23.5
    share = cells.shares(mask, (4, 4))
    assert share[0, 1, 1] == 1
    assert share.sum() == 1
    back = cells.enlarged(share, (64, 64))[0]
    assert np.unravel_index(back.argmax(), back.shape) in [
        (i, j) for i in (23, 24) for j in (23, 24)
    ]
