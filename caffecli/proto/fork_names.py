"""Names in Caffe's forks that mean nothing here, so that an error can say whose they are: by fork.

Sources: the caffe.proto and the layers of each repository; the published nets where the fork itself is not public.
"""

from __future__ import annotations

#: fields: by fork, by message
REFUSED = {
    "SPP-net (ShaoqingRen/SPP_net)": {
        "V0LayerParameter": "conv_param pool_param inner_product_param",
        "SolverParameter": "vstep_lr",
    },
    "SSD (weiliu89/caffe)": {
        "LayerParameter": "annotated_data_param multibox_loss_param detection_evaluate_param video_data_param",
        "TransformationParameter": "resize_param noise_param crop_h crop_w distort_param expand_param emit_constraint",
        "DetectionOutputParameter": "visualize visualize_threshold save_file",
        "SolverParameter": "eval_type ap_version show_per_class_result plateau_winsize",
    },
    "SegNet (alexgkendall/caffe-segnet)": {
        "LayerParameter": "dense_image_data_param",
        "LossParameter": "weight_by_label_freqs class_weighting",
    },
    "PSPNet (hszhao/PSPNet)": {
        "LayerParameter": "seg_accuracy_param mat_read_param mat_write_param dense_crf_param domain_transform_param "
        "adaptive_bias_channel_param bias_channel_param unique_label_param",
        "TransformationParameter": "scale_factors crop_width crop_height",
        "BatchNormParameter": "update_global_stats",
        "ImageDataParameter": "ignore_label label_type",
    },
    "ParseNet (weiliu89/caffe, branch fcn)": {
        "LayerParameter": "parse_evaluate_param unpooling_param",
        "NormalizeParameter": "fix_scale",
        "ConvolutionParameter": "filter_stride filter_stride_h filter_stride_w",
    },
    "TSN (yjxiong/caffe)": {
        "NetParameter": "mem_param",
        "LayerParameter": "seg_data_param batch_reduction_param",
        "TransformationParameter": "fix_crop more_fix_crop multi_scale scale_ratios max_distort is_flow original_image stride "
        "upper_size upper_height upper_width",
        "ConvolutionParameter": "dilation_h dilation_w",
        "SolverParameter": "group_id richness",
    },
    "MobileNet-YOLO (eric612/MobileNet-YOLO)": {
        "LayerParameter": "region_loss_param yolov3_param yolo_seg_param segmentation_evaluate_param yolo_detection_output_param "
        "yolov3_detection_output_param reorg_param",
        "SolverParameter": "stagelr stageiter",
    },
    "NVIDIA (NVIDIA/caffe)": {
        "LayerParameter": "detectnet_groundtruth_param detectnet_augmentation_param forward_type backward_type forward_math "
        "backward_math debug cudnn_math_override trt_param",
        "NetParameter": "default_forward_type default_backward_type default_forward_math default_backward_math global_grad_scale "
        "global_grad_scale_adaptive default_conv_algos_override reduce_buckets default_cudnn_math_override eltwise_mem_sharing",
        "TransformationParameter": "img_rand_resize_lower img_rand_resize_upper rand_resize_ratio_lower rand_resize_ratio_upper "
        "vertical_stretch_lower vertical_stretch_upper horizontal_stretch_lower horizontal_stretch_upper "
        "interpolation_algo_down interpolation_algo_up allow_upscale forward_packing use_gpu_transform random_seed display "
        "num_labels",
        "BatchNormParameter": "scale_filler bias_filler scale_bias engine",
        "ConvolutionParameter": "cudnn_convolution_algo_seeker conv_algos_override",
        "DataParameter": "threads parser_threads cache shuffle precache",
        "DropoutParameter": "engine random_seed",
        "ELUParameter": "lambda",
        "ImageDataParameter": "short_side threads cache precache dataset_share_per_node",
        "LossParameter": "label_smoothing",
        "PoolingParameter": "torch_pooling",
        "SolverParameter": "rampup_interval rampup_lr min_lr solver_data_type store_blobs_in_old_format momentum_policy "
        "max_momentum momentum_power larc larc_policy larc_eta larc_turbo weight_decay_policy weight_decay_power "
        "max_weight_decay test_and_snapshot_last_epochs per_parameter_reduce",
    },
    "DeepLab (version 2, and hszhao/PSPNet)": {
        "LayerParameter": "densecrf_param",
    },
    "DeepLab (version 1, TheLegendAli/DeepLab-Context)": {
        "V1LayerParameter": "seg_accuracy_param mat_read_param mat_write_param dense_crf_param padding_param softmaxloss_param",
    },
    "R-FCN (daijifeng001/caffe-rfcn)": {
        "LayerParameter": "psroi_pooling_param box_annotator_ohem_param",
    },
    "MNC (daijifeng001/caffe-mnc)": {
        "LayerParameter": "roi_warping_param mask_resize_param",
    },
    "PVANet (sanghoon/caffe)": {
        "LayerParameter": "proposal_param",
    },
    "MS-CNN (zhaoweicai/mscnn)": {
        "LayerParameter": "box_output_param image_gt_data_param detection_loss_param detection_accuracy_param decode_bbox_param "
        "proposal_target_param bbox_reg_param",
    },
    "Cascade R-CNN (zhaoweicai/cascade-rcnn)": {
        "LayerParameter": "box_group_output_param detection_data_param eval_data_param detection_group_loss_param "
        "detection_group_accuracy_param scale_route_param hard_mining_param frcnn_output_param",
    },
    "center loss (ydwen/caffe-face)": {
        "LayerParameter": "center_loss_param",
    },
    "SphereFace (wy1iu/sphereface)": {
        "LayerParameter": "margin_inner_product_param",
    },
    "NormFace and AM-Softmax (happynear/caffe-windows)": {
        "LayerParameter": "normalize_param inner_distance_param flip_param label_specific_add_param general_triplet_loss_param "
        "focal_loss_param general_contrastive_loss_param label_specific_rescale_param",
        "InnerProductParameter": "normalize",
        "ParameterParameter": "blob_filler",
        "SoftmaxParameter": "normalize_type",
    },
    "compact bilinear pooling (gy20073/compact_bilinear_pooling)": {
        "LayerParameter": "compact_bilinear_param",
    },
    "WarpCTC (xmfbit/warpctc-caffe)": {
        "LayerParameter": "continuation_indicator_param ctc_loss_param labelsequence_accuracy_param",
    },
    "caffe_ocr (senlinuc/caffe_ocr)": {
        "LayerParameter": "denseblock_param transpose_param lstm_param reverse_param reverse_time_param ctc_loss_param "
        "ctc_decoder_param",
    },
    "OpenPose (CMU-Perceptual-Computing-Lab/caffe_train)": {
        "LayerParameter": "cpm_transform_param",
    },
    "FlowNet (lmb-freiburg/flownet2)": {
        "LayerParameter": "mean_param resample_param correlation_param augmentation_param coeff_schedule_param l1_loss_param "
        "flow_warp_param writer_param",
    },
    "transfer-caffe (thuml/transfer-caffe)": {
        "LayerParameter": "mmd_param",
    },
    "CRF as RNN (torrvision/crfasrnn)": {
        "LayerParameter": "multi_stage_meanfield_param",
        "V1LayerParameter": "multi_stage_meanfield_param",
    },
    "C3D (facebook/C3D)": {
        "LayerParameter": "pooling3d_param convolution3d_param",
        "V1LayerParameter": "video_data_param",
    },
    "GENet (hujie-frank/GENet)": {
        "LayerParameter": "cudnn_batch_norm_param",
    },
    "caffe-sl (wanji/caffe-sl)": {
        "LayerParameter": "triplet_loss_param",
    },
    "YOLO (yeahkun/caffe-yolo)": {
        "LayerParameter": "eval_detection_param detection_loss_param",
        "DataParameter": "side",
    },
    "LRCN (LisaAnne/lisa-caffe-public)": {
        "TransformationParameter": "flow",
        "EltwiseParameter": "coeff_blob",
    },
    "Intel (intel/caffe)": {
        "LayerParameter": "engine quantization_param spatial_dropout_param mn_activation_param mn_grad_compress_param "
        "eval_detection_param region_loss_param",
        "NetParameter": "bn_stats_batch_size multinode engine compile_net_state",
        "BatchNormParameter": "filler",
        "SolverParameter": "local_lr_auto warmup_iter warmup_start_lr engine",
        "TransformationParameter": "random_resize_param random_aspect_ratio_param",
    },
    "dgd_person_reid (Cysu/dgd_person_reid)": {
        "NetParameter": "richness",
        "LayerParameter": "guided_dropout_param",
    },
    "deepdetect (jolibrain/caffe)": {
        "DetectionOutputParameter": "objectness_score",
        "NonMaximumSuppressionParameter": "soft_nms",
    },
    "caffenet-benchmark (ducha-aiki/caffe)": {
        "LayerParameter": "apl_param rrelu_param eltwise_affine_param noise_param",
    },
    "caffe-model (soeaver/caffe-model)": {
        "LayerParameter": "selu_dropout_param",
    },
    "gradient reversal (ddtm/caffe)": {
        "LayerParameter": "gradient_scaler_param",
        "DataParameter": "cursor",
    },
    "person_search (ShuangLI59/person_search)": {
        "LayerParameter": "labeled_matching_param unlabeled_matching_param",
    },
    "DeconvNet (HyeonwooNoh/DeconvNet)": {
        "V1LayerParameter": "eltwise_accuracy_param unpooling_param",
    },
}

#: values, of V1's types and others: by fork, by enum
REFUSED_VALUES = {
    "DeepLab (version 1, TheLegendAli/DeepLab-Context)": {
        "LayerType": "ADAPTIVE_BIAS_CHANNEL BIAS_CHANNEL CENSOR_LABEL CHANNEL_AGGREGATOR DENSE_CRF DOMINANT_CHANNEL GAIN_CHANNEL "
        "HISTOGRAM IGNORE_OVERLAY IMAGE_SEG_DATA MAT_READ MAT_WRITE ONEHOT PADDING RELATIVE_ERROR SEG_ACCURACY UNIQUE_LABEL",
    },
    "DeconvNet (HyeonwooNoh/DeconvNet)": {
        "LayerType": "BN UNPOOLING WINDOW_SEG_DATA",
    },
    "CRF as RNN (torrvision/crfasrnn)": {
        "LayerType": "MULTI_STAGE_MEANFIELD",
    },
    "C3D (facebook/C3D)": {
        "LayerType": "CONVOLUTION3D DECONVOLUTION3D POOLING3D VIDEO_DATA VIDEO_SEGMENTATION_DATA VIDEO_WITH_VOXEL_TRUTH_DATA "
        "VOXEL_WISE_SOFTMAX VOXEL_CUSTOM_LOSS",
    },
    "Intel (intel/caffe)": {
        "Engine": "MKL2017 MKLDNN",
    },
}

#: layer types: by fork
REFUSED_TYPES = {
    "SSD (weiliu89/caffe)": "AnnotatedData MultiBoxLoss DetectionEvaluate VideoData",
    "SegNet (alexgkendall/caffe-segnet)": "DenseImageData",
    "PSPNet (hszhao/PSPNet)": "AdaptiveBiasChannel BiasChannel DenseCRF DomainTransform DomainTransformForwardOnly ImageSegData "
    "MatRead MatWrite SegAccuracy SpatialProduct UniqueLabel",
    "ParseNet (weiliu89/caffe, branch fcn)": "Grouping LabelDropout ParseEvaluate ParseOutput UnPooling ImageLabelmapData",
    "TSN (yjxiong/caffe)": "BatchReduction Gather Scatter SegData SyncBN VideoData",
    "MobileNet-YOLO (eric612/MobileNet-YOLO)": "AssistedExcitation GaussianYolov3 LaneData RegionLoss Reorg SegmentationEvaluate "
    "YoloDetectionOutput YoloSeg Yolov3 Yolov3DetectionOutput",
    "NVIDIA (NVIDIA/caffe)": "DetectNetTransformation TRT L1Loss",
    "R-FCN (daijifeng001/caffe-rfcn)": "PSROIPooling BoxAnnotatorOHEM SmoothL1LossOHEM SoftmaxWithLossOHEM",
    "MNC (daijifeng001/caffe-mnc)": "ROIWarping MaskPooling MaskResize",
    "PVANet (sanghoon/caffe)": "Proposal",
    "MS-CNN (zhaoweicai/mscnn)": "BboxAccuracy BoxOutput DecodeBBox DetectionAccuracy DetectionLoss ImageGtData ProposalTarget "
    "ROIAlign",
    "Cascade R-CNN (zhaoweicai/cascade-rcnn)": "BoxGroupOutput DetectionData DetectionGroupAccuracy DetectionGroupLoss EvalData "
    "FrcnnOutput HardMining ScaleRoute",
    "center loss (ydwen/caffe-face)": "CenterLoss",
    "SphereFace (wy1iu/sphereface)": "MarginInnerProduct",
    "NormFace and AM-Softmax (happynear/caffe-windows)": "ChannelScale Flip FocalLoss GeneralContrastiveLoss GeneralTripletLoss "
    "GlobalLSEMargin InnerDistance LabelSpecificAdd LabelSpecificRescale TripletLoss",
    "compact bilinear pooling (gy20073/compact_bilinear_pooling)": "CompactBilinear SignedSqrt",
    "WarpCTC (xmfbit/warpctc-caffe)": "ContinuationIndicator CtcLoss LabelsequenceAccuracy",
    "caffe_ocr (senlinuc/caffe_ocr)": "CTCGreedyDecoder DenseBlock Reverse ReverseTime SoftmaxWithLossMultiLabel Transpose "
    "WarpCTCLoss",
    "OpenPose (CMU-Perceptual-Computing-Lab/caffe_train)": "CPMData",
    "FlowNet (lmb-freiburg/flownet2)": "Correlation CustomData DataAugmentation Downsample FLOWriter FlowAugmentation FloData "
    "FlowWarp GenerateAugmentationParameters L1Loss LpqLoss Mean Resample",
    "transfer-caffe (thuml/transfer-caffe)": "MMDLoss",
    "CRF as RNN (torrvision/crfasrnn)": "MultiStageMeanfield",
    "C3D (facebook/C3D)": "Convolution3D Deconvolution3D Pooling3D VideoData",
    "GENet (hujie-frank/GENet)": "CuDNNBatchNorm",
    "caffe-sl (wanji/caffe-sl)": "BatchTripletLoss DotProductSimilarity EuclideanSimilarity L2Norm NaiveTripletLoss "
    "PairwiseRankingLoss RankAccuracy TripletImageData",
    "YOLO (yeahkun/caffe-yolo)": "BoxData EvalDetection DetectionLoss",
    "Intel (intel/caffe)": "MKLBatchNorm MnActivation SpatialDropout",
    "RCF (yun-liu/rcf)": "AutoCrop",
    "dgd_person_reid (Cysu/dgd_person_reid)": "GuidedDropout",
    "gradient reversal (ddtm/caffe)": "GradientScaler",
    "person_search (ShuangLI59/person_search)": "LabeledMatching UnlabeledMatching",
    "caffenet-benchmark (ducha-aiki/caffe)": "APL RReLU EltwiseAffine GatedMaxAve TreepoolKernel1L TreepoolMaxAve",
    "caffe-model (soeaver/caffe-model)": "SeLu SeLuDropout",
    "SSDH (kevinlin311tw/Caffe-DeepBinaryCode)": "K1_EuclideanLoss K2_EuclideanLoss",
}

#: what to write for a fork's field, or for its value: by message or enum, and name
INSTEAD = {
    ("ConvolutionParameter", "hole"): "it is DeepLab's: write dilation",
    ("ConvolutionParameter", "hole_h"): "it is DeepLab's: write dilation twice, for height and width",
    ("ConvolutionParameter", "hole_w"): "it is DeepLab's: write dilation twice, for height and width",
    ("LayerType", "CROP"): "the old 'layers' have no such type: write all as layer { type: \"Crop\" ... }, the present form",
    ("NetParameter", "item"): "it is one of SSD's label maps: this is no net",
    ("SolverParameter", "plateau_winsize"): (
        'it is one of SSD\'s: remove it, write lr_policy: "fixed", and give --plateau N:GAMMA to caffecli train'
    ),
}
