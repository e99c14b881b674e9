import numpy as np

from analysis.statistics import bootstrap


def test_weights_are_reproducible_and_belong_to_their_name():
    first, again = (bootstrap.weights(5, 8, 0, "a") for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert (first.sum(1) == 5).all()
    assert (bootstrap.weights(5, 8, 0, "b") != first).any()


def test_one_cluster_has_no_interval():
    low, high = bootstrap.interval(np.array([1.0]), np.ones((100, 1)), 1, 0.95)
    assert np.isnan(low).all()
    assert np.isnan(high).all()


def test_intervals_of_a_mean_cover_with_few_clusters():
    """The plain percentile interval covers about 83% of the time with 4 clusters and 92% with 12."""
    for clusters in (4, 6, 12):
        data = np.random.default_rng(clusters).normal(size=(4000, clusters))
        weights = bootstrap.weights(clusters, 600, 0, "test") / clusters
        low, high = bootstrap.interval(data.mean(1), weights @ data.T, clusters, 0.95)
        assert 0.93 <= ((low <= 0) & (high >= 0)).mean() <= 0.98


def test_one_source_gives_its_own_interval():
    draws = np.random.default_rng(0).normal(size=(500, 3))
    estimate = draws.mean(0)
    sources = [bootstrap.Source(draws, 6)]
    combined = bootstrap.combined_interval(estimate, sources, lambda values: values, 0.95)
    np.testing.assert_allclose(combined, bootstrap.interval(estimate, draws, 6, 0.95))


def test_sources_add_in_quadrature_and_what_is_held_elsewhere_counts_once():
    draw = np.random.default_rng(0)
    wide, narrow = 4 * draw.normal(size=(4000, 1)), 3 * draw.normal(size=(4000, 1))

    def reach(*sources):
        low, high = bootstrap.combined_interval(np.zeros(1), sources, lambda values: values, 0.95)
        return (high - low)[0] / 2 / 1.96

    many = 10_000
    both = reach(bootstrap.Source(wide, many), bootstrap.Source(narrow, many))
    assert np.isclose(both, 5, rtol=0.05)
    assert np.isclose(
        reach(bootstrap.Source(wide, many), bootstrap.Source(narrow, many, held_elsewhere=narrow)), 4, 0.05
    )
    assert np.isclose(reach(bootstrap.Source(wide, many), bootstrap.Source(narrow, many, held_elsewhere=wide)), 4, 0.05)
