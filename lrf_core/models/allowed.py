"""The parts of Keras that a model file may name: reviewed one by one, for Keras 3.15.

Everything else is refused, so that a new release of Keras cannot add to what a file can do. A name
is on a list if making the part runs no code of the file's choice, calls none of Keras' functions by
name, opens no file and no connection, and if calling it on tensors does the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


DTYPES = _names(
    """
    bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 bfloat16 float32 float64
    complex64 complex128 string
    """
)
POLICIES = DTYPES | {"mixed_float16", "mixed_bfloat16"}

# Settings that are plain numbers, strings, booleans, or lists of such.
PLAIN = _names(
    """
    addition_factor all_ops alpha antialias approximate assume_unique atol attention_axes
    attn_logits_soft_cap autocast axes axis axis1 axis2 axisa axisb axisc b base beam_width
    bias_axes bin_boundaries bins block_size bottom_cropping bottom_padding
    bounding_box_format brightness_factor center clip_limit compute_uv contrast_factor
    crop_to_aspect_ratio cropping data_format decimals default_value depth_multiplier
    destination dilation dilation_rate dims distribution dropout dx endpoint epsilon
    equal_nan equation expand_dims factor fill_mode fill_value filter_sigma filter_size
    filters flash_attention from_logits full_matrices gain gamma go_backwards groups
    has_input_vocabulary head_dim height height_factor hue_factor increasing indexing
    init_values initial input_axes input_dim input_length interpolation invert is_causal k
    k1 k2 keepdims kernel_size key_dim kth l1 l2 left_cropping left_padding length
    logit_soft_cap lora_alpha lora_rank lower mag_exp margin mask_index mask_token
    mask_value mask_zero max_freq max_number max_val max_value maxval merge_mode
    merge_repeated method min_freq min_power min_value minlength minval mode momentum nan
    narrow_range negative_slope neginf newshape noise_shape normalize num_classes num_heads
    num_key_value_heads num_mel_bins num_query_heads num_segments num_tokens oov_method
    oov_token optional ord order output_axes output_dim output_mode output_padding
    output_shape output_size pad_to_aspect_ratio pad_to_max_tokens pad_width padding
    periodic pool_size posinf power_to_db projection_dim ragged range rate rcond
    recurrent_dropout reduction ref_power renorm renorm_clipping renorm_momentum repeats
    reset_after retstep return_counts return_index return_inverse return_sequences
    return_state right_cropping right_padding rms_scaling rtol salt sampling_rate
    saturation_factor scaling score_mode shared_axes shift side sigma size sliding_window
    sorted source sparse spatial_dims stddev strategy stride strides subscripts synchronized
    target_height target_shape target_width threshold threshold_factor tie_weights
    tile_grid_size tol top_cropping top_db top_padding top_paths trainable unit_forget_bias
    units unroll upper use_bias use_cudnn use_gate use_scale value_dim value_range
    vocabulary_size width width_factor window x x_factor x_max x_min y_factor
    zero_output_for_mask
    """
)
# Settings that may be an array as well.
ARRAYS = frozenset({"mean", "offset", "scale", "value", "variance"})
# Settings that are the shape of samples, or of a batch of them.
SHAPES = frozenset(
    {"batch_input_shape", "batch_shape", "build_input_shape", "input_shape", "shape"}
)
# Settings whose strings Keras looks up.
CHOICES = {
    "encoding": frozenset({"ascii", "latin-1", "utf-8", "utf8", "UTF-8", "UTF-16-BE", "UTF-32-BE"}),
    "split": frozenset({"character", "whitespace"}),
    "standardize": frozenset({"lower", "lower_and_strip_punctuation", "strip_punctuation"}),
}
# Settings that are a size in memory, or a number of rounds, as soon as the part is made.
MOST = {
    "batch_size": 1 << 16,
    "chain_depth": 100,
    "fft_length": 1 << 20,
    "frame_length": 1 << 20,
    "frame_step": 1 << 20,
    "indices_or_sections": 1000,
    "max_tokens": 1 << 24,
    "N": 1 << 16,
    "n": 1 << 20,
    "ngrams": 100,
    "num": 1000,
    "num_bins": 1 << 24,
    "num_chains": 100,
    "num_oov_indices": 1 << 20,
    "num_ops": 100,
    "output_sequence_length": 1 << 24,
    "power_iterations": 1000,
    "sequence_length": 1 << 20,
    "sequence_stride": 1 << 20,
}
# Settings of losses and metrics. The sizes bound a confusion matrix to 64 MB.
COMPILED = _names(
    """
    alpha apply_class_balancing average axis beta class_aggregation class_id curve delta
    dtype from_logits from_sorted_ids gamma ignore_class label_smoothing label_weights
    margin multi_label name precision q recall reduction remove_diagonal sensitivity
    sparse_y_pred sparse_y_true specificity summation_method target_class_ids threshold
    thresholds
    """
)
COMPILED_MOST = {
    "k": 1 << 20,
    "num_classes": 4096,
    "num_labels": 4096,
    "num_regressors": 1 << 20,
    "num_thresholds": 4096,
    "top_k": 1 << 20,
}


@dataclass(frozen=True, eq=False)
class Place:
    """What may stand in one place of a config.

    Attributes:
        noun: what the place takes, for messages.
        module: where Keras exports the classes.
        classes: names that may be made from a config of their own.
        names: strings that Keras makes a class or function of.
        plain: settings of the classes that are plain.
        most: settings of the classes that are bounded.
    """

    noun: str
    module: str
    classes: frozenset[str]
    names: frozenset[str]
    plain: frozenset[str] = PLAIN
    most: Mapping[str, int] = field(default_factory=lambda: MOST)


# Left out: Lambda, TFSMLayer, TorchModuleWrapper, JaxLayer and FlaxLayer run code; Layer and
# Wrapper do nothing; FeatureSpace is no layer of a graph.
LAYERS = _names(
    """
    Activation ActivityRegularization AdaptiveAveragePooling1D AdaptiveAveragePooling2D
    AdaptiveAveragePooling3D AdaptiveMaxPooling1D AdaptiveMaxPooling2D AdaptiveMaxPooling3D
    Add AdditiveAttention AlphaDropout Attention AugMix AutoContrast Average
    AveragePooling1D AveragePooling2D AveragePooling3D BatchNormalization Bidirectional
    CategoryEncoding CenterCrop Concatenate ContrastLimitedAdaptiveHistogramEqualization
    Conv1D Conv1DTranspose Conv2D Conv2DTranspose Conv3D Conv3DTranspose ConvLSTM1D
    ConvLSTM2D ConvLSTM3D Cropping1D Cropping2D Cropping3D CutMix Dense DepthwiseConv1D
    DepthwiseConv2D Discretization Dot Dropout ELU EinsumDense Embedding Equalization
    Flatten GRU GRUCell GaussianDropout GaussianNoise GlobalAveragePooling1D
    GlobalAveragePooling2D GlobalAveragePooling3D GlobalMaxPooling1D GlobalMaxPooling2D
    GlobalMaxPooling3D GroupNormalization GroupQueryAttention HashedCrossing Hashing
    Identity InputLayer IntegerLookup LSTM LSTMCell LayerNormalization LeakyReLU Masking
    MaxNumBoundingBoxes MaxPooling1D MaxPooling2D MaxPooling3D Maximum MelSpectrogram
    Minimum MixUp MultiHeadAttention Multiply Normalization PReLU Permute Pipeline
    RMSNormalization RNN RandAugment RandomBrightness RandomColorDegeneration
    RandomColorJitter RandomContrast RandomCrop RandomElasticTransform RandomErasing
    RandomFlip RandomGaussianBlur RandomGrayscale RandomHue RandomInvert RandomPerspective
    RandomPosterization RandomRotation RandomSaturation RandomSharpness RandomShear
    RandomTranslation RandomZoom ReLU RepeatVector Rescaling Reshape Resizing
    ReversibleEmbedding STFTSpectrogram SeparableConv1D SeparableConv2D SimpleRNN
    SimpleRNNCell Softmax Solarization SpatialDropout1D SpatialDropout2D SpatialDropout3D
    SpectralNormalization StackedRNNCells StringLookup Subtract TextVectorization
    TimeDistributed UnitNormalization UpSampling1D UpSampling2D UpSampling3D ZeroPadding1D
    ZeroPadding2D ZeroPadding3D
    """
)
# Layers of keras.applications, by the module that Keras writes.
OF_APPLICATIONS = {
    "keras.src.applications.convnext": frozenset({"LayerScale"}),
    "keras.src.applications.inception_resnet_v2": frozenset({"CustomScaleLayer"}),
}
MODELS = frozenset({"Functional", "Model", "Sequential"})

# What a functional graph holds for keras.ops and Python operators, by the module that Keras
# writes. Left out: operations that call a function (Map, Scan, Switch, Cond, WhileLoop, JVP, ...),
# and those that make a tensor of a size of their own (Full, Arange, Linspace, ...).
OPERATIONS = {
    "keras.src.activations.activations": _names(
        """
        Mish ReLU
        """
    ),
    "keras.src.ops.core": _names(
        """
        Cast ConvertToTensor SaturateCast Scatter ScatterUpdate Slice SliceUpdate
        StopGradient Unstack
        """
    ),
    "keras.src.ops.einops": _names(
        """
        Rearrange
        """
    ),
    "keras.src.ops.image": _names(
        """
        AffineTransform CropImages ElasticTransform ExtractPatches GaussianBlur HSVToRGB
        MapCoordinates PadImages PerspectiveTransform RGBToGrayscale RGBToHSV Resize
        SSIM ScaleAndTranslate SobelEdges
        """
    ),
    "keras.src.ops.linalg": _names(
        """
        Cholesky CholeskyInverse Det Eig Eigh Inv Lstsq LuFactor MatrixRank Norm Pinv Qr
        SVD Solve SolveTriangular
        """
    ),
    "keras.src.ops.math": _names(
        """
        CDist Erf Erfc Erfinv ExtractSequences FFT FFT2 IFFT2 IRFFT ISTFT InTopK Logdet
        Logsumexp RFFT Rsqrt STFT SegmentMax SegmentMin SegmentProd SegmentSum TopK
        ViewAsComplex ViewAsReal
        """
    ),
    "keras.src.ops.nn": _names(
        """
        AdaptiveAveragePool AdaptiveMaxPool AveragePool BatchNorm BinaryCrossentropy
        CTCDecode CTCLoss CategoricalCrossentropy Celu Conv ConvTranspose DepthToSpace
        DepthwiseConv DotProductAttention Elu Fold Gelu Glu HardShrink HardSigmoid
        HardSilu HardTanh LayerNorm LeakyRelu LogSigmoid LogSoftmax MaxPool Moments
        MultiHot Normalize OneHot PSNR Polar RMSNorm Relu Relu6 Selu SeparableConv
        Sigmoid Silu SoftShrink Softmax Softplus Softsign SpaceToDepth
        SparseCategoricalCrossentropy SparsePlus SparseSigmoid Sparsemax Squareplus
        TanhShrink Threshold Unfold
        """
    ),
    "keras.src.ops.numpy": _names(
        """
        Abs Absolute Add All AllClose Amax Amin Angle Any Append Arccos Arccosh Arcsin
        Arcsinh Arctan Arctan2 Arctanh Argmax Argmin Argpartition Argsort Array
        ArraySplit Average Bincount BitwiseAnd BitwiseInvert BitwiseLeftShift BitwiseNot
        BitwiseOr BitwiseRightShift BitwiseXor BroadcastTo Cbrt Ceil Clip Concatenate
        Conj Conjugate Copy Corrcoef Correlate Cos Cosh CountNonzero Cross Cumprod
        Cumsum Deg2rad Diag Diagflat Diagonal Diff Digitize Divide DivideNoNan Dot
        Dsplit Dstack Einsum EmptyLike Equal Exp Exp2 ExpandDims Expm1 Fabs Flip Fliplr
        Flipud Floor FloorDivide Fmax Fmin Fmod FullLike Gcd GetItem Greater
        GreaterEqual Heaviside Histogram Hsplit Hstack Hypot I0 Imag Inner IsIn Isclose
        Isfinite Isinf Isnan Isneginf Isposinf Isreal Kron Lcm Ldexp LeftShift Less
        LessEqual Log Log10 Log1p Log2 Logaddexp Logaddexp2 LogicalAnd LogicalNot
        LogicalOr LogicalXor Matmul Max Maximum Mean Median Meshgrid Min Minimum Mod
        Moveaxis Multiply NanToNum Nanargmax Nanargmin Nancumprod Nancumsum Nanmax
        Nanmean Nanmedian Nanmin Nanpercentile Nanprod Nanquantile Nanstd Nansum Nanvar
        Ndim Negative Nextafter Nonzero NotEqual OnesLike Outer Pad Percentile Power
        Prod Ptp Quantile Rad2deg Ravel Real Reciprocal Repeat Reshape RightShift Roll
        Rot90 Round SearchSorted Select Sign Signbit Sin Sinc Sinh Size Slogdet Sort
        Split Sqrt Square Squeeze Stack Std Subtract Sum Swapaxes Take TakeAlongAxis Tan
        Tanh Tensordot Tile Trace Transpose Trapezoid Tril Triu TrueDivide Trunc Unique
        UnravelIndex Vander Var Vdot View Vsplit Vstack Where ZerosLike
        """
    ),
}

ACTIVATION = Place(
    "activation",
    "keras.activations",
    frozenset(),
    _names(
        """
        celu elu exponential gelu glu hard_shrink hard_sigmoid hard_silu hard_swish
        hard_tanh leaky_relu linear log_sigmoid log_softmax mish relu relu6 selu sigmoid
        silu soft_shrink softmax softplus softsign sparse_plus sparse_sigmoid sparsemax
        squareplus swish tanh tanh_shrink threshold
        """
    ),
)
_INITIALIZERS = _names(
    """
    Constant GlorotNormal GlorotUniform HeNormal HeUniform Identity IdentityInitializer
    LecunNormal LecunUniform Ones Orthogonal OrthogonalInitializer RandomNormal
    RandomUniform STFT STFTInitializer TruncatedNormal VarianceScaling Zeros
    """
)
INITIALIZER = Place(
    "initializer",
    "keras.initializers",
    _INITIALIZERS,
    _INITIALIZERS
    | _names(
        """
        constant glorot_normal glorot_uniform he_normal he_uniform identity lecun_normal
        lecun_uniform normal one ones orthogonal random_normal random_uniform stft
        truncated_normal uniform variance_scaling zero zeros
        """
    ),
)
_REGULARIZERS = frozenset({"L1", "L1L2", "L2", "OrthogonalRegularizer"})
REGULARIZER = Place(
    "regularizer",
    "keras.regularizers",
    _REGULARIZERS,
    _REGULARIZERS | {"l1", "l1l2", "l2", "orthogonal_regularizer"},
)
_CONSTRAINTS = frozenset({"MaxNorm", "MinMaxNorm", "NonNeg", "UnitNorm"})
CONSTRAINT = Place(
    "constraint",
    "keras.constraints",
    _CONSTRAINTS,
    _CONSTRAINTS | {"max_norm", "min_max_norm", "non_neg", "unit_norm"},
)
_LOSSES = _names(
    """
    BinaryCrossentropy BinaryFocalCrossentropy CTC CategoricalCrossentropy
    CategoricalFocalCrossentropy CategoricalGeneralizedCrossEntropy CategoricalHinge Circle
    CosineSimilarity Dice Hinge Huber KLDivergence LogCosh MeanAbsoluteError
    MeanAbsolutePercentageError MeanSquaredError MeanSquaredLogarithmicError Poisson
    SparseCategoricalCrossentropy SquaredHinge Tversky
    """
)
LOSS = Place(
    "loss",
    "keras.losses",
    _LOSSES,
    _LOSSES
    | _names(
        """
        binary_crossentropy binary_focal_crossentropy categorical_crossentropy
        categorical_focal_crossentropy categorical_generalized_cross_entropy
        categorical_hinge circle cosine_similarity ctc dice hinge huber kl_divergence
        log_cosh mean_absolute_error mean_absolute_percentage_error mean_squared_error
        mean_squared_logarithmic_error poisson sparse_categorical_crossentropy
        squared_hinge tversky bce kld mae mape mse msle BCE KLD MAE MAPE MSE MSLE
        """
    ),
    COMPILED,
    COMPILED_MOST,
)
_METRICS = _names(
    """
    AUC Accuracy BinaryAccuracy BinaryCrossentropy BinaryIoU CategoricalAccuracy
    CategoricalCrossentropy CategoricalHinge ConcordanceCorrelation CosineSimilarity F1Score
    FBetaScore FalseNegatives FalsePositives Hinge IoU KLDivergence LogCoshError Mean
    MeanAbsoluteError MeanAbsolutePercentageError MeanIoU MeanSquaredError
    MeanSquaredLogarithmicError OneHotIoU OneHotMeanIoU PearsonCorrelation Poisson Precision
    PrecisionAtRecall R2Score Recall RecallAtPrecision RootMeanSquaredError
    SensitivityAtSpecificity SparseCategoricalAccuracy SparseCategoricalCrossentropy
    SparseTopKCategoricalAccuracy SpecificityAtSensitivity SquaredHinge Sum
    TopKCategoricalAccuracy TrueNegatives TruePositives
    """
)
METRIC = Place(
    "metric",
    "keras.metrics",
    _METRICS,
    _METRICS
    | _names(
        """
        accuracy acc crossentropy ce binary_accuracy binary_crossentropy
        binary_focal_crossentropy categorical_accuracy categorical_crossentropy
        categorical_focal_crossentropy categorical_hinge concordance_correlation
        cosine_similarity hinge huber kl_divergence log_cosh mean_absolute_error
        mean_absolute_percentage_error mean_squared_error mean_squared_logarithmic_error
        pearson_correlation poisson sparse_categorical_accuracy
        sparse_categorical_crossentropy sparse_top_k_categorical_accuracy squared_hinge
        top_k_categorical_accuracy auc f1_score false_negatives false_positives
        precision recall true_negatives true_positives root_mean_squared_error bce mae
        mape mse msle BCE MAE MAPE MSE MSLE
        """
    ),
    COMPILED,
    COMPILED_MOST,
)
