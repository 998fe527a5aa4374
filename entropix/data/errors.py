"""What can be wrong with a data set, by name; all are `ValueError`s the command line shows."""


class DataError(ValueError):
    """A data set that cannot be used; the message says which, why, and what to do."""


class DataNotFoundError(DataError):
    """No prepared copy was found, and none could be downloaded."""


class DataPackageError(DataError):
    """A package that reading this data set needs is not installed."""


class UnreadableDataError(DataError):
    """Records or metadata of a prepared copy are damaged, missing or of another format."""


class SplitSizeError(DataError):
    """A split has another number of examples than the data set is known to have."""


class LabelRangeError(DataError):
    """A label lies outside the known classes."""
