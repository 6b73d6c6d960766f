from tests.train.conftest import dataset, sharp_llama  # noqa: F401
