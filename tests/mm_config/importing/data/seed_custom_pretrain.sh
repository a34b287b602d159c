#!/bin/bash
source /usr/local/Ascend/cann/set_env.sh
export CUDA_DEVICE_MAX_CONNECTIONS=2 # 开启FSDP2时,不能置为1
NPUS_PER_NODE=8
MASTER_ADDR=localhost
MASTER_PORT=6007
NNODES=1
NODE_RANK=0
WORLD_SIZE=$(($NPUS_PER_NODE*$NNODES))
MBS=1
GRAD_ACC_STEP=1
DP=$(($WORLD_SIZE))
GBS=$(($MBS*$GRAD_ACC_STEP*$DP))
MM_DATA="./examples/custom_model/data.json"
MM_MODEL="./examples/custom_model/model.json"
MM_TOOL="./mindspeed_mm/tools/tools.json"
fsdp2_config="./examples/custom_model/fsdp2_config.yaml"
DISTRIBUTED_ARGS="
--nproc_per_node $NPUS_PER_NODE \
--nnodes $NNODES \
--node_rank $NODE_RANK \
--master_addr $MASTER_ADDR \
--master_port $MASTER_PORT
"
GPT_ARGS="
--micro-batch-size ${MBS} \
--global-batch-size ${GBS} \
--num-workers 8 \
--lr 1e-5 \
--min-lr 1e-5 \
--adam-beta1 0.9 \
--adam-beta2 0.999 \
--adam-eps 1e-8 \
--lr-decay-style constant \
--weight-decay 1e-2 \
--lr-warmup-init 0 \
--lr-warmup-iters 0 \
--clip-grad 1.0 \
--train-iters 5000 \
--no-gradient-accumulation-fusion \
--use-torch-fsdp2 \
--fsdp2-config-path ${fsdp2_config} \
--untie-embeddings-and-output-weights \
"
MM_ARGS="
--mm-data $MM_DATA \
--mm-model $MM_MODEL \
--mm-tool $MM_TOOL
"
OUTPUT_ARGS="
--log-interval 1 \
--save-interval 10000 \
--eval-interval 10000 \
--eval-iters 10 \
--ckpt-format torch_dcp \
"
logfile=$(date +%Y%m%d)_$(date +%H%M%S)
mkdir -p logs
torchrun $DISTRIBUTED_ARGS pretrain_custom.py \
$GPT_ARGS \
$MM_ARGS \
$OUTPUT_ARGS \
--distributed-backend nccl \
2>&1 | tee logs/train_${logfile}.log
