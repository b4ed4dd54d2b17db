// Stands in for CUDA's header of this name: TensorRT's own headers pass these handles on and never look inside.
#ifndef WATCHPOST_CUDA_RUNTIME_API_H
#define WATCHPOST_CUDA_RUNTIME_API_H

typedef struct CUstream_st* cudaStream_t;
typedef struct CUevent_st* cudaEvent_t;

#endif
