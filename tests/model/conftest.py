"""Failed comparisons of the world are explained like those of a test."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("model.world", "model.model")
