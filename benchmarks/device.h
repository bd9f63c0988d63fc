// What a benchmark needs to know of the device that it measures.
#pragma once

#include <ATen/DeviceAccelerator.h>
#include <ATen/ops/empty.h>
#include <c10/core/Device.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>

#include <cstdint>
#include <string>

#include "motley/ops/parameters.h"

namespace motley::bench {

// Returns when everything that was handed to the device is done; at once for a CPU.
inline void wait_for(c10::Device device) {
  if (device.is_cpu()) return;
  c10::impl::getDeviceGuardImpl(device.type())->synchronizeDevice(device.index());
}

// Moves a layer; on a GPU its parameters are drawn there, which for billions of them takes seconds instead of
// minutes. `layer` has visit(prefix, visitor).
template <class Layer>
void move_layer(Layer& layer, c10::Device device) {
  if (device.is_cpu()) return;
  layer.visit("", [&](const std::string&, at::Tensor& tensor, TensorRole) {
    tensor = at::empty(tensor.sizes(), tensor.options().device(device)).normal_(0, 0.02);
  });
}

// Free bytes of a GPU's memory, with what torch holds for later.
inline uint64_t free_memory(c10::Device device) {
  auto* allocator = at::getDeviceAllocator(device.type());
  allocator->emptyCache();
  return allocator->getMemoryInfo(device.index()).first;
}

}  // namespace motley::bench
