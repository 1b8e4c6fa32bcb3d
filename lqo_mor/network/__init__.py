"""Deep state-space models: forward pass and compression."""

from lqo_mor.network.allocation import allocate as allocate
from lqo_mor.network.bound import OutputErrorBound as OutputErrorBound
from lqo_mor.network.bound import output_error_bound as output_error_bound
from lqo_mor.network.calibrated import CalibrationOptions as CalibrationOptions
from lqo_mor.network.compress import compress as compress
from lqo_mor.network.compression_report import CompressionReport as CompressionReport
from lqo_mor.network.compression_report import CompressionResult as CompressionResult
from lqo_mor.network.compression_report import LayerReport as LayerReport
from lqo_mor.network.conformal import ConformalBound as ConformalBound
from lqo_mor.network.conformal import conformal_error_bound as conformal_error_bound
from lqo_mor.network.layers import Embedding as Embedding
from lqo_mor.network.layers import LayerNorm as LayerNorm
from lqo_mor.network.layers import Linear as Linear
from lqo_mor.network.model import Block as Block
from lqo_mor.network.model import DeepSSM as DeepSSM
