from toy_data import emt_data  # noqa: F401
