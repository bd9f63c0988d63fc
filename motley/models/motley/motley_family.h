// model_type "motley": Motley's own architectures, in Hugging Face's layout and key names.
#pragma once

#include "motley/models/model_family.h"

namespace motley {

extern const ModelFamily kMotleyFamily;

}  // namespace motley
