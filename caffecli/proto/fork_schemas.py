"""What Caffe's forks add to caffe.proto: their messages and fields, each with the fork's own number.

Sources: the caffe.proto of each repository: branches ssd, segnet-cleaned, faster-rcnn, caffe-0.15 to 0.17, else the main one.
"""

from __future__ import annotations

#: by fork: messages of its own, and what it adds to the reference's (those that a message ``extend``s)
FORKS = {
    "SSD (weiliu89/caffe)": """
        message PermuteParameter { repeated uint32 order = 1; }
        message NormalizeParameter {
          optional bool across_spatial = 1 [default = true];
          optional FillerParameter scale_filler = 2;
          optional bool channel_shared = 3 [default = true];
          optional float eps = 4 [default = 1e-10];
        }
        message PriorBoxParameter {
          enum CodeType { CORNER = 1; CENTER_SIZE = 2; CORNER_SIZE = 3; }
          repeated float min_size = 1;
          repeated float max_size = 2;
          repeated float aspect_ratio = 3;
          optional bool flip = 4 [default = true];
          optional bool clip = 5 [default = false];
          repeated float variance = 6;
          optional uint32 img_size = 7;
          optional uint32 img_h = 8;
          optional uint32 img_w = 9;
          optional float step = 10;
          optional float step_h = 11;
          optional float step_w = 12;
          optional float offset = 13 [default = 0.5];
        }
        message NonMaximumSuppressionParameter {
          optional float nms_threshold = 1 [default = 0.3];
          optional int32 top_k = 2;
          optional float eta = 3 [default = 1];
        }
        message ResizeParameter {
          enum Resize_mode { WARP = 1; FIT_SMALL_SIZE = 2; FIT_LARGE_SIZE_AND_PAD = 3; }
          enum Pad_mode { CONSTANT = 1; MIRRORED = 2; REPEAT_NEAREST = 3; }
          enum Interp_mode { LINEAR = 1; AREA = 2; NEAREST = 3; CUBIC = 4; LANCZOS4 = 5; }
          optional float prob = 1 [default = 1];
          optional ResizeParameter.Resize_mode resize_mode = 2 [default = WARP];
          optional uint32 height = 3 [default = 0];
          optional uint32 width = 4 [default = 0];
          optional ResizeParameter.Pad_mode pad_mode = 5 [default = CONSTANT];
          repeated float pad_value = 6;
          repeated ResizeParameter.Interp_mode interp_mode = 7;
          optional uint32 height_scale = 8 [default = 0];
          optional uint32 width_scale = 9 [default = 0];
        }
        message SaveOutputParameter {
          optional string output_directory = 1;
          optional string output_name_prefix = 2;
          optional string output_format = 3;
          optional string label_map_file = 4;
          optional string name_size_file = 5;
          optional uint32 num_test_image = 6;
          optional ResizeParameter resize_param = 7;
        }
        message DetectionOutputParameter {
          optional uint32 num_classes = 1;
          optional bool share_location = 2 [default = true];
          optional int32 background_label_id = 3 [default = 0];
          optional NonMaximumSuppressionParameter nms_param = 4;
          optional SaveOutputParameter save_output_param = 5;
          optional PriorBoxParameter.CodeType code_type = 6 [default = CORNER];
          optional int32 keep_top_k = 7 [default = -1];
          optional bool variance_encoded_in_target = 8 [default = false];
          optional float confidence_threshold = 9;
        }
        extend LayerParameter {
          optional PermuteParameter permute_param = 202;
          optional PriorBoxParameter prior_box_param = 203;
          optional DetectionOutputParameter detection_output_param = 204;
          optional NormalizeParameter norm_param = 206;
        }""",
    "SegNet (alexgkendall/caffe-segnet)": """
        message UpsampleParameter {
          optional uint32 scale = 1 [default = 2];
          optional uint32 scale_h = 2;
          optional uint32 scale_w = 3;
          optional bool pad_out_h = 4 [default = false];
          optional bool pad_out_w = 5 [default = false];
          optional uint32 upsample_h = 6;
          optional uint32 upsample_w = 7;
        }
        message BNParameter {
          enum BNMode { LEARN = 0; INFERENCE = 1; }
          optional FillerParameter scale_filler = 1;
          optional FillerParameter shift_filler = 2;
          optional BNParameter.BNMode bn_mode = 3 [default = LEARN];
        }
        extend LayerParameter {
          optional BNParameter bn_param = 45;
          optional UpsampleParameter upsample_param = 137;
        }
        extend DropoutParameter { optional bool sample_weights_test = 2 [default = false]; }""",
    "DeepLab (version 2, and hszhao/PSPNet)": """
        message InterpParameter {
          optional int32 height = 1 [default = 0];
          optional int32 width = 2 [default = 0];
          optional int32 zoom_factor = 3 [default = 1];
          optional int32 shrink_factor = 4 [default = 1];
          optional int32 pad_beg = 5 [default = 0];
          optional int32 pad_end = 6 [default = 0];
        }
        extend LayerParameter { optional InterpParameter interp_param = 143; }""",
    "PSPNet (hszhao/PSPNet)": """
        extend BNParameter {
          enum Engine { DEFAULT = 0; CAFFE = 1; CUDNN = 2; }
          optional FillerParameter slope_filler = 1;
          optional FillerParameter bias_filler = 2;
          optional float momentum = 3 [default = 0.9];
          optional float eps = 4 [default = 1e-5];
          optional bool frozen = 5 [default = false];
          optional BNParameter.Engine engine = 6 [default = DEFAULT];
        }""",
    "DeepLab (version 1, TheLegendAli/DeepLab-Context)": """
        extend V1LayerParameter {
          enum LayerType { INTERP = 41; }
          optional InterpParameter interp_param = 43;
        }""",
    "ShuffleNet (farmingyard/ShuffleNet)": """
        message ShuffleChannelParameter { optional uint32 group = 1 [default = 1]; }
        extend LayerParameter { optional ShuffleChannelParameter shuffle_channel_param = 164; }""",
    "Faster R-CNN (rbgirshick/caffe-fast-rcnn)": """
        message ROIPoolingParameter {
          optional uint32 pooled_h = 1 [default = 0];
          optional uint32 pooled_w = 2 [default = 0];
          optional float spatial_scale = 3 [default = 1];
        }
        message SmoothL1LossParameter { optional float sigma = 1 [default = 1]; }
        extend LayerParameter {
          optional ROIPoolingParameter roi_pooling_param = 8266711;
          optional SmoothL1LossParameter smooth_l1_loss_param = 8266712;
        }
        extend DropoutParameter { optional bool scale_train = 2 [default = true]; }""",
    "MobileNet-YOLO (eric612/MobileNet-YOLO)": """
        extend LayerParameter { optional ReLUParameter relu6_param = 211; }""",
    "ceil_mode (pull request 3057 of BVLC/caffe, which many forks took)": """
        extend PoolingParameter { optional bool ceil_mode = 13 [default = true]; }""",
    "NVIDIA (NVIDIA/caffe)": """
        enum Type { DOUBLE = 0; FLOAT = 1; FLOAT16 = 2; INT = 3; UINT = 4; BOOL = 5; }
        extend BlobProto {
          optional Type raw_data_type = 10;
          optional Type raw_diff_type = 11;
          optional bytes raw_data = 12;
          optional bytes raw_diff = 13;
        }""",
}
