"""Fields of Caffe's forks that nothing here reads; of some only the name is known.

Whoever makes a layer, or the solver, read one of ``FIELDS`` or ``VALUES`` takes it out. A layer's own settings
(``correlation_param`` of a ``Correlation``) need not be listed: they are missing where their layer's type is, which is
here once a layer is registered under it. Forks are called as in ``forks.FORKS``.
"""

from __future__ import annotations

#: fields that would change what is computed: by fork, by message
FIELDS = {
    "ssd": {},
    "deeplab": {
        "TransformationParameter": "scale_factors crop_width crop_height",
        "BatchNormParameter": "update_global_stats",
        "ImageDataParameter": "ignore_label label_type",
    },
    "deeplab_v1": {
        "ConvolutionParameter": "hole hole_h hole_w",
        "EuclideanLossParameter": "type",
        "ImageDataParameter": "has_label max_labels",
        "SoftmaxLossParameter": "ignore_label weight_source",
    },
    "mobilenet_yolo": {
        "TransformationParameter": "enable_classf_aug cvt_bgr2rgb",
        "RegionLossParameter": "softmax_tree",
        "Yolov3DetectionOutputParameter": "gaussian_box",
        "AnnotatedDataParameter": "difficult_label_warmup seg_resize_height seg_resize_width seg_scales single_class",
    },
    "nvidia": {
        "SolverParameter": "rampup_interval rampup_lr min_lr momentum_policy max_momentum momentum_power larc "
        "larc_policy larc_eta larc_turbo weight_decay_policy weight_decay_power max_weight_decay "
        "test_and_snapshot_last_epochs",
        "TransformationParameter": "img_rand_resize_lower img_rand_resize_upper rand_resize_ratio_lower "
        "rand_resize_ratio_upper vertical_stretch_lower vertical_stretch_upper horizontal_stretch_lower "
        "horizontal_stretch_upper interpolation_algo_down interpolation_algo_up allow_upscale",
        "LossParameter": "label_smoothing",
        "MultiBoxLossParameter": "ignore_difficult_gt",
        "BatchNormParameter": "scale_filler bias_filler scale_bias",
        "ELUParameter": "lambda",
        "ImageDataParameter": "short_side",
        "PoolingParameter": "torch_pooling",
    },
    "parsenet": {
        "SolverParameter": "test_before_snapshot",
        "TransformationParameter": "vertical_mirror random_90_deg_rot",
        "ConvolutionParameter": "filter_stride filter_stride_h filter_stride_w",
        "DataParameter": "shuffle_buffer_size",
        "PoolingParameter": "bin_size bin_h bin_w",
        "NormalizeParameter": "fix_scale",
        "BNParameter": "var_eps moving_average decay across_spatial",
    },
    "mscnn": {
        "DetectionLossParameter": "cls_num coord_num lambda field_h field_w downsample_rate bb_smooth field_whr "
        "field_xyr bg_threshold bg_multiple sample_mode objectness iou_weighted pos_neg_weighted",
    },
    "tsn": {
        "TransformationParameter": "fix_crop multi_scale scale_ratios max_distort is_flow more_fix_crop stride "
        "upper_size upper_height upper_width original_image",
        "ConvolutionParameter": "dilation_h dilation_w",
        "ReductionParameter": "k",
        "VideoDataParameter": "source scale mean_file batch_size crop_size mirror rand_skip shuffle new_height "
        "new_width new_length num_segments modality name_pattern encoded grayscale",
    },
    "caffe_windows": {
        "FillerParameter": "alpha",
        "LayerParameter": "normalize_param",
        "SolverParameter": "clamp_weights_lower clamp_weights_upper clip_weights",
        "TransformationParameter": "center_crop erase_ratio scale_min scale_max aspect_min aspect_max",
        "AccuracyParameter": "min_is_better",
        "BatchNormParameter": "disable_mean disable_variance",
        "ConvolutionParameter": "shape_offset",
        "DropoutParameter": "sqrt_scale",
        "ImageDataParameter": "face_transform max_shear_ratio max_aspect_ratio max_rotate_angle min_random_scale "
        "max_random_scale max_random_shift face_mirror face_point_num balance_class balance_by label_cut_start "
        "label_cut_end",
        "InnerProductParameter": "normalize",
        "MemoryDataParameter": "transpose",
        "NormalizeParameter": "normalize_type fix_gradient bp_norm",
        "ParameterParameter": "blob_filler",
        "PoolingParameter": "blobs_lr blobs_a_min",
        "ScaleParameter": "min_value max_value",
        "SoftmaxParameter": "hard_ratio class_weight hard_mining_label cutting_point normalize_type "
        "label_smooth_factor",
    },
    "intel": {
        "FillerParameter": "scale",
        "SolverParameter": "warmup_iter warmup_start_lr local_lr_auto local_gw_ratio",
        "TransformationParameter": "random_resize_param random_aspect_ratio_param flow bgr2rgb pad",
        "BatchNormParameter": "use_weight_bias bias_term filler bias_filler relu",
        "ConvolutionParameter": "relu negative_slope coeff fusion_type",
        "ImageDataParameter": "min_height min_width",
        "InnerProductParameter": "relu negative_slope",
        "PoolingParameter": "avg_include_pad axis pad_3d kernel_size_3d stride_3d",
        "ROIPoolingParameter": "pooled_size",
        "ReshapeParameter": "pixelshuffler",
    },
    "flownet": {
        "FillerParameter": "diag_val",
        "DataParameter": "preselection_file preselection_label range_start range_end rand_permute "
        "rand_permute_order rand_permute_seed slice_point encoding verbose subtract permute_every_iter block_size "
        "huge_video_dataset limit_samples",
    },
    "c3d": {
        "VideoDataParameter": "source scale mean_file batch_size crop_size mirror rand_skip shuffle new_height "
        "new_width is_color root_folder new_length show_data use_image use_temporal_jitter sampling_rate "
        "max_sampling_rate use_sampling_rate_jitter use_multiple_label num_of_labels",
    },
    "c3d_v1": {
        "ConvolutionParameter": "kernel_depth temporal_stride temporal_pad",
        "ImageDataParameter": "new_length use_image sampling_rate use_label use_temporal_jitter mean_value "
        "num_truth_channels use_byte_input is_flow truth_scale clip_min clip_max",
        "PoolingParameter": "kernel_depth temporal_stride",
    },
    "caffe_ocr": {
        "TransformationParameter": "add_noise noise_ratio",
        "DataParameter": "task_class_num",
        "ImageDataParameter": "task_class_num regression",
        "MemoryDataParameter": "label_size",
    },
    "ctpn": {"BNParameter": "axis"},
    "cpm": {
        "TransformationParameter": "scale_cvg max_cvg_len min_cvg_len opaque_coverage coverage flip_prob "
        "max_rotate_degree visualize crop_size_x crop_size_y scale_prob bbox_norm_factor img_header target_dist "
        "center_perterb_max sigma sigma_center clahe_tile_size clahe_clip_limit do_clahe num_parts num_total_augs "
        "aug_way gray np_in_lmdb transform_body_joint put_gaussian visualize_label stride",
    },
    "deconvnet": {"ImageDataParameter": "other_object_label"},
    "caffe_augmentation": {
        "TransformationParameter": "min_scaling_factor max_scaling_factor rotation_angle_interval "
        "contrast_adjustment smooth_filtering jpeg_compression",
    },
    "caffenet_benchmark": {
        "TransformationParameter": "random_crop_on_test",
        "ELUParameter": "symmetric_mode",
    },
    "deepdetect": {
        "SolverParameter": "amsgrad rectified adabelief lr_mult p_mult period lookahead lookahead_steps "
        "lookahead_alpha gc decoupled_wd_t0 decoupled_wd_mult lr_dropout",
        "TransformationParameter": "rotate geometry_param untransformed_top",
        "DetectionOutputParameter": "output_logits",
        "HDF5DataParameter": "image",
        "ImageDataParameter": "label_size",
        "InterpParameter": "mode",
        "NonMaximumSuppressionParameter": "soft_nms theta",
        "SoftmaxParameter": "scaling_temperature",
    },
    "lrcn": {
        "TransformationParameter": "flow",
        "AccuracyParameter": "denominator",
        "EltwiseParameter": "coeff_blob",
    },
    "dgd": {
        "TransformationParameter": "multi_scale_levels",
        "DataParameter": "shuffle_pool_size",
    },
    "gradient_reversal": {"DataParameter": "cursor"},
    "stn": {"FillerParameter": "file"},
    "caffe_augmentation_2016": {
        "TransformationParameter": "min_scaling_factor max_scaling_factor max_rotation_angle "
        "contrast_brightness_adjustment smooth_filtering min_contrast max_contrast max_brightness_shift max_smooth "
        "max_color_shift min_side_min min_side_max min_side apply_probability",
    },
    "openpose_2018": {"ConvolutionParameter": "binary"},
    "deep_compression": {
        "ConvolutionParameter": "sparse_ratio class_num quantize_term",
        "InnerProductParameter": "sparse_ratio class_num quantize_term",
    },
    "enet": {"ImageDataParameter": "label_divide_factor"},
    "structured_sparsity": {
        "ParamSpec": "force_regularize force_mult",
        "SolverParameter": "force_type force_decay force_iter force_decay_type force_direction",
    },
}

#: fields without influence on the result (how the fork computes, what it shows): logged once, then ignored; by message
HOW = {
    "NetParameter": "auto_insert_gathers bn_stats_batch_size compile_net_state default_backward_math "
    "default_backward_type default_conv_algos_override default_cudnn_math_override default_forward_math "
    "default_forward_type eltwise_mem_sharing engine global_grad_scale global_grad_scale_adaptive mem_param "
    "multinode reduce_buckets richness",
    "LayerParameter": "backward_math backward_type cudnn_math_override debug display engine forward_math "
    "forward_type mn_grad_compress_param multinode quantization_param reshape_every_iter",
    "SolverParameter": "disabled_update engine group_id log_avg_gradient_norm richness solver_data_type "
    "store_blobs_in_old_format test_offset",
    "TransformationParameter": "debug_params display forward_packing num_labels random_seed use_gpu_transform",
    "BatchNormParameter": "engine stats_batch_size",
    "ConcatParameter": "engine per_fla_fuse",
    "ConvolutionParameter": "conv_algorithm conv_algos_override cudnn_convolution_algo_seeker cudnn_flavor "
    "filter_group",
    "DataParameter": "cache disk_reader_threads parser_threads precache show_data threads",
    "DropoutParameter": "engine random_seed",
    "EltwiseParameter": "engine",
    "HDF5DataParameter": "debug",
    "ImageDataParameter": "cache dataset_share_per_node precache show_data threads",
    "InnerProductParameter": "engine",
    "ReLUParameter": "fuse",
}

#: values of enums that no layer here supports: by enum
VALUES = {
    "DataParameter.DB": "DATUMFILE",
    "EltwiseParameter.EltwiseOp": "SORT STOCHASTIC_SUM",
    "PoolingParameter.PoolMethod": "DEF DEF_ALL DEF_ALL2 DEF_ALL3 DEF_ALL4 LOWRES",
    "ReductionParameter.ReductionOp": "TOPK",
    "SolverParameter.SolverType": "SAG",
}

#: fields and values of which only the name is known: by fork, then by message or enum. Those of layers have a place in
#: the schema (scripts/generate_schema.py), and their content in a text is stepped over; those of solvers and V0 layers
#: stop a file
NAMES = {
    "spp_net": {
        "V0LayerParameter": "conv_param pool_param inner_product_param",
        "SolverParameter": "vstep_lr",
    },
    "deeplab": {"LayerParameter": "densecrf_param"},
    "nvidia": {"SolverParameter": "per_parameter_reduce"},
    "crfasrnn": {
        "V1LayerParameter": "multi_stage_meanfield_param",
        "LayerType": "MULTI_STAGE_MEANFIELD",
    },
    "c3d": {"V1LayerParameter": "video_data_param", "LayerType": "VOXEL_WISE_SOFTMAX"},
    "genet": {"LayerParameter": "cudnn_batch_norm_param"},
    "dgd": {"LayerParameter": "guided_dropout_param"},
    "caffenet_benchmark": {"LayerParameter": "apl_param"},
    "person_search": {"LayerParameter": "labeled_matching_param unlabeled_matching_param"},
}
