"""The networks of the paper in `flax.nnx`, and the layers that make them fast on CPU."""

from entropix.models.convolution import conv_general_dilated
from entropix.models.decoder import Decoder
from entropix.models.dropout import Dropout
from entropix.models.network import Network, functional
from entropix.models.networks import all_cnn, lenet, mlp
from entropix.models.pooling import max_pool

__all__ = [
    "Decoder",
    "Dropout",
    "Network",
    "all_cnn",
    "conv_general_dilated",
    "functional",
    "lenet",
    "max_pool",
    "mlp",
]
