"""Products of matrices by several libraries."""

from __future__ import annotations

import importlib.util

import pytest

from service.benchmarks import matrix_products


def test_every_library_that_is_installed_multiplies_all_shapes_in_every_thread() -> None:
    made = matrix_products.every(2)
    assert {kind for kind, _, _ in made} <= {"fp32", "bf16", "torch"}
    operations = [2 * rows * inner * columns for rows, inner, columns in matrix_products.SHAPES]
    for kind, libraries in (("fp32", 2), ("torch", 1)):
        assert [count for name, count, _ in made if name == kind] == operations * libraries
    for _, _, calls in made:
        assert len(calls) == 2
        for call in calls:
            call()


def test_threads_multiply_matrices_of_their_own() -> None:
    _, _, calls = matrix_products.of_numpy(3)[0]
    results = [call() for call in calls]
    assert len({id(result) for result in results}) == 3
    rows, _, columns = matrix_products.SHAPES[0]
    assert all(result.shape == (rows, columns) for result in results)


def test_without_other_libraries_numpy_multiplies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert {kind for kind, _, _ in matrix_products.every(1)} == {"fp32"}
    assert len(matrix_products.every(1)) == len(matrix_products.SHAPES)
    assert list(matrix_products.missing().values()) == [
        "onnx is not installed; the fp32 rate is NumPy's, half of it on some CPUs"
    ]


def test_nothing_is_missing_where_all_is_installed() -> None:
    assert matrix_products.missing() == {}
