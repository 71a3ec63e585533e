"""The layer types that Caffe's forks add to the reference's, by fork, whether they are here or not.

A type that a fork took from another stands under the other. Those in capitals are of the old ``layers``, and have no
other name. Sources: the types that each repository registers.
"""

from __future__ import annotations

#: forks that have no file in proto/forks
OTHERS = {
    "spp_net": "SPP-net (ShaoqingRen/SPP_net)",
    "hed": "HED (s9xie/hed)",
    "rcf": "RCF (yun-liu/rcf)",
    "pvanet": "PVANet (sanghoon/pva-faster-rcnn)",
    "genet": "GENet (hujie-frank/GENet)",
    "senet": "SENet (hujie-frank/SENet)",
    "depthwise": "MobileNet-Caffe and its kin (yonghenglh6/DepthwiseConvolution)",
    "ssdh": "SSDH (kevinlin311tw/Caffe-DeepBinaryCode)",
    "caffe_model": "caffe-model (soeaver/caffe-model)",
    "person_search": "person_search (ShuangLI59/person_search)",
}

TYPES = {
    "ssd": "AnnotatedData DetectionEvaluate DetectionOutput MultiBoxLoss Normalize Permute PriorBox VideoData",
    "segnet": "BN DenseImageData Upsample",
    "deeplab": "AdaptiveBiasChannel BiasChannel DenseCRF DomainTransform DomainTransformForwardOnly ImageSegData "
    "Interp MatRead MatWrite SegAccuracy SpatialProduct UniqueLabel",
    "pspnet": "BN",
    "deeplab_v1": "CensorLabel ChannelAggregator DominantChannel GainChannel Histogram IgnoreOverlay OneHot Padding "
    "RelativeError",
    "shufflenet": "ShuffleChannel",
    "faster_rcnn": "ROIPooling SmoothL1Loss",
    "mobilenet_yolo": "AssistedExcitation GaussianYolov3 LaneData ReLU6 RegionLoss Reorg SegmentationEvaluate "
    "Upsample YoloDetectionOutput YoloSeg Yolov3 Yolov3DetectionOutput",
    "nvidia": "DetectNetTransformation L1Loss TRT",
    "parsenet": "Grouping LabelDropout ParseEvaluate ParseOutput UnPooling",
    "rfcn": "BoxAnnotatorOHEM PSROIPooling SmoothL1LossOHEM SoftmaxWithLossOHEM",
    "mnc": "MaskPooling MaskResize ROIWarping",
    "mscnn": "BboxAccuracy BoxOutput DecodeBBox DetectionAccuracy DetectionLoss ImageGtData ProposalTarget ROIAlign",
    "cascade_rcnn": "BoxGroupOutput DetectionData DetectionGroupAccuracy DetectionGroupLoss EvalData FrcnnOutput "
    "HardMining ScaleRoute",
    "tsn": "BatchReduction Gather Scatter SegData SyncBN VideoData",
    "caffe_face": "CenterLoss",
    "sphereface": "MarginInnerProduct",
    "lsoftmax": "LargeMarginInnerProduct",
    "caffe_windows": "Arccos BATCH_NORM BatchContrastiveLoss ChannelScale ConfidencePenaltyLoss CorrelationLoss Cosine "
    "FCNAccuracy Flip FocalLoss GeneralContrastiveLoss GeneralTripletLoss GlobalLSEMargin Gram Hotspot "
    "InnerDistance Insanity LabelSpecificAdd LabelSpecificRescale Local MovingNormalize MultiLabelImageData NCALoss "
    "NORMALIZE Noise Normalize Pairwise PredictBox Resize Slope SoftContrastiveLoss SoftTruncation SubRegion "
    "Transformer TripletLoss Truncation",
    "intel": "MKLBatchNorm MnActivation SpatialDropout",
    "yolo": "BoxData DetectionLoss EvalDetection",
    "flownet": "Accum BlackAugmentation ChannelNorm Correlation Correlation1D CustomData DataAugmentation "
    "DisparityData Downsample FLOWriter FloData FloatReader FloatWriter FlowAugmentation FlowWarp "
    "GenerateAugmentationParameters ImgReader ImgWriter L1Loss LpqLoss Mean NegReLU PFMWriter Resample",
    "c3d": "BlackHole Convolution3D Deconvolution3D Pooling3D VOXEL_WISE_SOFTMAX VideoData",
    "c3d_v1": "DownSampling ELTWISE_PRODUCT VideoSegmentationData VideoWithVoxelTruthData VolumeData VoxelCustomLoss "
    "VoxelSoftmax VoxelSoftmaxLoss",
    "caffe_ocr": "CTCGreedyDecoder DenseBlock ReverseTime SoftmaxWithLossMultiLabel WarpCTCLoss",
    "ctpn": "Lstm Reverse Transpose",
    "warpctc": "ContinuationIndicator CtcLoss LabelsequenceAccuracy",
    "openpose": "CPMData",
    "cpm": "CPMData",
    "crfasrnn": "CROP MultiStageMeanfield",
    "deconvnet": "BinAccuracy CROP DropoutChannel EltwiseAccuracy RedAccuracy RedSoftmaxLoss SelectSegBinary "
    "Unpooling WindowClsData WindowInstSegData WindowSegBinary WindowSegData",
    "textboxes_pp": "CTCLoss",
    "caffenet_benchmark": "APL Covariance EltwiseAffine EuclideanLossWithIndex GatedMaxAve ImageLocData RReLU "
    "TreepoolKernel1L TreepoolMaxAve",
    "ristretto": "ConvolutionRistretto DeconvolutionRistretto FcRistretto LRNRistretto",
    "lifted_structure": "LiftedStructSimilaritySoftmaxLoss",
    "compact_bilinear": "Bilinear CompactBilinear L2Normalize SignedSqrt",
    "deepdetect": "BroadcastMul CrossEntropyLoss DICE_LOSS DiceCoefLoss MemorySparseData MultiBoxFocalLoss "
    "SoftmaxWithInfogainLoss SparseData SparseInnerProduct",
    "dgd": "GuidedDropout MPIGather MPIScatter",
    "gradient_reversal": "GradientScaler",
    "transfer": "MMDLoss",
    "caffe_sl": "BatchTripletLoss BinaryData DotProductSimilarity EuclideanSimilarity HDMLLossUpperBound L2Norm "
    "NaiveTripletLoss PairwiseRankingLoss RankAccuracy TripletBinaryData TripletImageData",
    "stn": "LocLoss PowerFile STLoss SpatialTransformer",
    "openpose_2018": "OPData",
    "deep_compression": "CmpConvolution CmpInnerProduct",
    "enet": "SpatialDropout",
    "structured_sparsity": "Sparsify SymmetricRectify",
    "mask_rcnn": "ROIAlign",
    "caffe_lstm": "Lstm",
    "affordance_net": "ROIAlignment ROIAlignment2",
    "hed": "CROP ImageLabelmapData",
    "rcf": "AutoCrop ImageLabelmapData",
    "pvanet": "Proposal",
    "genet": "CuDNNBatchNorm",
    "senet": "Axpy",
    "depthwise": "ConvolutionDepthwise DepthwiseConvolution",
    "ssdh": "K1_EuclideanLoss K2_EuclideanLoss MultiLabelAccuracy MultiLabelSigmoidLoss",
    "caffe_model": "SeLu SeLuDropout",
    "person_search": "LabeledMatching UnlabeledMatching",
}
